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


def _clean(prompts: Sequence[str]) -> list[str]:
    # What PixArt's pipeline does to a prompt; its further cleaning needs extra packages and strips real words.
    return [prompt.lower().strip() for prompt in prompts]
