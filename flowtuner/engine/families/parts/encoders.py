"""T5, alone or beside CLIP, as several families read it."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from flowtuner.engine.families.parts.clip import TwoClips, pad_tokens
from flowtuner.engine.family import Rows, TextEncoder


class T5Text(TextEncoder):
    """T5 as PixArt uses it: lower case, the hidden states of the last layer."""

    def __init__(self, tokenizer: Any, model: Any, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._max_tokens = max_tokens
        self._counted: dict[str, list[int]] = {}

    def clean(self, prompt: str) -> str:
        """What the pipeline does to a prompt; its further cleaning needs extra packages and strips real words."""
        return prompt.lower().strip()

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
        cleaned = [self.clean(prompt) for prompt in prompts]
        ids: list[list[int]] = self._tokenizer(cleaned, truncation=True, max_length=self._max_tokens).input_ids
        return ids


class UMT5Text(T5Text):
    """UMT5 as Wan uses it: as it is written, but for HTML's own signs and runs of blanks."""

    def clean(self, prompt: str) -> str:
        """What the pipeline does to a prompt before it is read."""
        return re.sub(r"\s+", " ", html.unescape(html.unescape(prompt))).strip()


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


class ClipsAndT5(TextEncoder):
    """Two CLIPs beside each other, widened to T5's width, and T5's view of the same prompt behind them."""

    def __init__(self, clips: TwoClips, t5: tuple[Any, Any] | None, width: int, max_tokens: int) -> None:
        self._clips = clips
        self._t5 = t5
        self._width = width
        self._max_tokens = max_tokens

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """T5's tokens per prompt, or CLIP's where there is no T5."""
        if self._t5 is None:
            return self._clips.count_tokens(prompts)
        ids = self._t5[0](list(prompts), truncation=True, max_length=self._max_tokens).input_ids
        return [len(row) for row in ids]

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[Rows]:
        """All tokens, padding included: the model reads that too. Without T5 its part is zeros."""
        rows = self._clips.encode(prompts)
        if self._t5 is None:
            later = rows[0]["prompt_embeds"].new_zeros(len(prompts), self._max_tokens, self._width)
        else:
            tokenizer, model = self._t5
            later = model(pad_tokens(tokenizer, prompts, self._max_tokens).to(model.device))[0]
        return [
            row | {"prompt_embeds": self._join(row["prompt_embeds"], own)} for row, own in zip(rows, later, strict=True)
        ]

    def _join(self, clip: torch.Tensor, t5: torch.Tensor) -> torch.Tensor:
        wide = torch.nn.functional.pad(clip, (0, self._width - clip.shape[-1]))
        return torch.cat([wide, t5.to(wide.dtype)])


def pad_rows(rows: Sequence[Rows]) -> tuple[torch.Tensor, torch.Tensor]:
    """The prompts of a batch, padded to the longest of them, and the mask that makes this exact."""
    embeds = [row["prompt_embeds"] for row in rows]
    lengths = torch.tensor([len(embed) for embed in embeds])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    return pad_sequence(embeds, batch_first=True), mask.to(embeds[0].device)
