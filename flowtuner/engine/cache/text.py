"""Encoded prompts: each distinct prompt once, prompts of like length together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch

from flowtuner.engine.cache.keys import text_key, text_origin
from flowtuner.engine.cache.progress import Progress, Report
from flowtuner.engine.cache.store import Rows, Store, Writer
from flowtuner.engine.run import CacheReport, Portion
from flowtuner.errors import DataError

WHOLE = Portion()


class Encoder(Protocol):
    """What is asked of a text encoder."""

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens each prompt has after truncation."""

    def encode(self, prompts: Sequence[str]) -> list[Rows]:
        """One row per prompt, trimmed to its own length."""


class TextCache:
    """The encoded prompts of one text encoder in one number format."""

    def __init__(self, store: Store, encoder: str, max_tokens: int, dtype: torch.dtype) -> None:
        self.store = store
        self._encoder = encoder
        self._max_tokens = max_tokens
        self._dtype = dtype
        self._dtype_name = str(dtype).removeprefix("torch.")
        self._keys: dict[str, str] = {}

    def read(self, prompt: str) -> Rows:
        """The encoded prompt, straight from the mapped file."""
        return self.store.read(self._key(prompt))

    def has(self, prompt: str) -> bool:
        """Whether a prompt is encoded already."""
        return self._key(prompt) in self.store

    def encode_missing(
        self,
        prompts: Iterable[str],
        open_encoder: Callable[[], Encoder],
        *,
        batch_size: int,
        write_rows: int,
        report: Report,
        portion: Portion = WHOLE,
    ) -> CacheReport:
        """Encodes the prompts that no shard holds; the encoder is opened only if there are any."""
        batches = [batch for number, batch in enumerate(cut(prompts, batch_size)) if portion.takes(number)]
        missing = [own for batch in batches if (own := [prompt for prompt in batch if not self.has(prompt)])]
        total, count = sum(map(len, batches)), sum(map(len, missing))
        progress = Progress(count, report)
        if missing:
            self.store.remove_damaged()
            with self.store.writer(write_rows) as writer:
                encoder = open_encoder()
                for batch in missing:
                    for prompt, row in zip(batch, self.encode(batch, encoder), strict=True):
                        self.put(prompt, row, writer)
                    writer.end_batch()
                    progress.advance(len(batch))
        progress.finish()
        return CacheReport(total=total, hits=total - count, encoded=progress.done, seconds=progress.seconds)

    def encode(self, batch: list[str], encoder: Encoder) -> list[Rows]:
        """Encodes prompts together."""
        with torch.inference_mode():
            rows = encoder.encode(batch)
            self._check(batch, rows)
            return [self._typed(row) for row in rows]

    def put(self, prompt: str, row: Rows, writer: Writer) -> None:
        """Hands an encoded prompt to the writer."""
        writer.put(self._key(prompt), row, self._origin(prompt))

    def _check(self, prompts: list[str], rows: list[Rows]) -> None:
        # A sum is finite exactly if its terms are, and one look at a whole batch is much quicker than one per prompt.
        if _is_finite(rows):
            return
        prompt = next(prompt for prompt, row in zip(prompts, rows, strict=True) if not _is_finite([row]))
        raise DataError(
            f"the text encoder gave infinite or undefined numbers in {self._dtype_name} for the prompt "
            f"{prompt[:80]!r}. Use mixed_precision bf16 or no."
        )

    def _typed(self, row: Rows) -> Rows:
        return {name: tensor.to(self._dtype) if tensor.is_floating_point() else tensor for name, tensor in row.items()}

    def _key(self, prompt: str) -> str:
        key = self._keys.get(prompt)
        if key is None:
            key = self._keys[prompt] = text_key(prompt, self._encoder, self._max_tokens, self._dtype_name)
        return key

    def _origin(self, prompt: str) -> dict[str, str]:
        return text_origin(prompt, self._encoder, self._max_tokens, self._dtype_name)


def cut(prompts: Iterable[str], batch_size: int) -> list[list[str]]:
    """The prompts in batches that depend on the prompts alone: what is encoded beside a prompt is in its last bits."""
    # Padding costs as much as text: prompts of like length go together, the longest first, so that memory that does
    # not suffice is noticed at once.
    ordered = sorted(set(prompts), key=lambda prompt: (-len(prompt), prompt))
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def _is_finite(rows: list[Rows]) -> bool:
    floats = [tensor.reshape(-1) for row in rows for tensor in row.values() if tensor.is_floating_point()]
    return not floats or math.isfinite(torch.cat(floats).sum(dtype=torch.float32).item())
