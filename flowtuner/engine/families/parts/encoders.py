"""Text encoders and autoencoders that several families share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from flowtuner.engine.family import Rows, TextEncoder, Vae


class T5Text(TextEncoder):
    """T5 as PixArt uses it: lower case, the hidden states of the last layer."""

    def __init__(self, tokenizer: Any, model: Any, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._max_tokens = max_tokens
        self._counted: dict[str, list[int]] = {}

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens per prompt, the end mark included."""
        ids = self._tokenize(prompts)
        # Whoever counts encodes next: small encoders spend a third of their time on tokens.
        self._counted = dict(zip(prompts, ids, strict=True))
        return [len(row) for row in ids]

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[Rows]:
        """The hidden states of each prompt's own tokens."""
        known = [self._counted.pop(prompt, None) for prompt in prompts]
        rows = [torch.tensor(row) for row in (self._tokenize(prompts) if None in known else known)]
        lengths = [len(row) for row in rows]
        ids = pad_sequence(rows, batch_first=True, padding_value=self._tokenizer.pad_token_id)
        mask = torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
        device = self._model.device
        states = self._model(ids.to(device), attention_mask=mask.to(device, torch.long))[0]
        return [{"prompt_embeds": states[row, :length].clone()} for row, length in enumerate(lengths)]

    def _tokenize(self, prompts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(_clean(prompts), truncation=True, max_length=self._max_tokens).input_ids
        return ids


class ClipAndT5(TextEncoder):
    """CLIP's summary of a prompt, and T5's view of all its tokens, padding included: the model reads that too."""

    def __init__(self, clip_tokenizer: Any, clip: Any, t5_tokenizer: Any, t5: Any, max_tokens: int) -> None:
        self._clip_tokenizer = clip_tokenizer
        self._clip = clip
        self._t5_tokenizer = t5_tokenizer
        self._t5 = t5
        self._max_tokens = max_tokens

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """T5's tokens per prompt, the end mark included."""
        ids = self._t5_tokenizer(list(prompts), truncation=True, max_length=self._max_tokens).input_ids
        return [len(row) for row in ids]

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[Rows]:
        """Both encoders' answers; every prompt has the same length."""
        clip_ids = pad_tokens(self._clip_tokenizer, prompts, self._clip_tokenizer.model_max_length)
        t5_ids = pad_tokens(self._t5_tokenizer, prompts, self._max_tokens)
        pooled = self._clip(clip_ids.to(self._clip.device)).pooler_output
        states = self._t5(t5_ids.to(self._t5.device))[0]
        return [
            {"prompt_embeds": state.clone(), "pooled_prompt_embeds": one.clone()}
            for state, one in zip(states, pooled, strict=True)
        ]


class KlVae(Vae):
    """AutoencoderKL with the scaling that its models expect."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.scale = 2 ** (len(module.config.block_out_channels) - 1)
        self._factor = module.config.scaling_factor
        self._shift = getattr(module.config, "shift_factor", None) or 0.0

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """The mode of the posterior, scaled."""
        mode = self.module.encode(pixels.to(self.module.device, self.module.dtype)).latent_dist.mode()
        latents: torch.Tensor = (mode - self._shift) * self._factor
        return latents

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures from scaled latents."""
        plain = latents.to(self.module.device, self.module.dtype) / self._factor + self._shift
        pixels: torch.Tensor = self.module.decode(plain, return_dict=False)[0]
        return pixels


def pad_tokens(tokenizer: Any, prompts: Sequence[str], length: int) -> torch.Tensor:
    """Token ids of prompts that are cut or padded to one length."""
    ids: torch.Tensor = tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    ).input_ids
    return ids


def _clean(prompts: Sequence[str]) -> list[str]:
    # What PixArt's pipeline does to a prompt; its further cleaning needs extra packages and strips real words.
    return [prompt.lower().strip() for prompt in prompts]
