"""Rows that are encoded when first asked for, together with those that filling the cache would encode beside them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch

from flowtuner.engine.cache.batches import PictureBatches
from flowtuner.engine.cache.latents import Encode, LatentCache
from flowtuner.engine.cache.modes import Mode
from flowtuner.engine.cache.store import Rows, Store, Writer
from flowtuner.engine.cache.text import Encoder, TextCache, cut
from flowtuner.engine.data.sample import Sample


class LatentReader:
    """The latents of all datasets, each by the mode of its own; may be asked by several threads."""

    def __init__(
        self,
        cache: LatentCache,
        samples: Callable[[], Sequence[Sample]],
        modes: Mapping[str, Mode],
        open_encoder: Callable[[], Encode],
        device: torch.device,
        batch_size: int,
        write_rows: int,
    ) -> None:
        self._cache = cache
        self._samples = samples
        self._modes = modes
        self._open_encoder = open_encoder
        self._device = device
        self._batch_size = batch_size
        self._write_rows = write_rows
        self._lock = threading.Lock()
        self._writers = _Writers()
        self._waiting: dict[tuple[int, str], torch.Tensor] = {}

    def read(self, sample: Sample) -> torch.Tensor:
        """The latent of a sample, from the cache or made now."""
        mode = self._modes[sample.dataset_id]
        if mode is Mode.FILLED:
            return self._cache.read(sample)
        with self._lock:
            if mode is Mode.UNUSED:
                return self._encode([sample])[0]
            if self._cache.has(sample):
                return self._cache.read(sample)
            mark = self._mark(sample)
            if mark not in self._waiting:
                self._encode_around(sample)
            return self._waiting[mark]

    def close(self) -> None:
        """Writes what is not written yet."""
        with self._lock:
            self._writers.close()
            self._waiting.clear()

    def _encode_around(self, sample: Sample) -> None:
        store = self._cache.stores[sample.dataset_id]
        batch = self._batches.around(sample)
        latents = self._encode(batch)
        writer = self._writers.of(store, self._write_rows)
        # What was handed over earlier is in the store by now.
        self._waiting = {
            mark: row for mark, row in self._waiting.items() if mark[0] != id(store) or mark[1] not in store
        }
        for one, latent in zip(batch, latents, strict=True):
            self._waiting[self._mark(one)] = latent
            if not self._cache.has(one):
                self._cache.put(one, latent, writer)
        writer.end_batch()

    def _encode(self, batch: Sequence[Sample]) -> list[torch.Tensor]:
        # Copies: autograd refuses tensors that were made in inference mode.
        return [latent.clone() for latent in self._cache.encode(batch, self._open_encoder(), self._device)]

    @cached_property
    def _batches(self) -> PictureBatches:
        return PictureBatches(self._samples(), self._cache.stores, self._cache.key, self._batch_size)

    def _mark(self, sample: Sample) -> tuple[int, str]:
        return id(self._cache.stores[sample.dataset_id]), self._cache.key(sample)


class TextReader:
    """The encoded prompts of a run, by the mode of their cache; may be asked by several threads."""

    def __init__(
        self,
        cache: TextCache,
        prompts: Callable[[], Sequence[str]],
        mode: Mode,
        open_encoder: Callable[[], Encoder],
        batch_size: int,
        write_rows: int,
    ) -> None:
        self._cache = cache
        self._prompts = prompts
        self._mode = mode
        self._open_encoder = open_encoder
        self._batch_size = batch_size
        self._write_rows = write_rows
        self._lock = threading.Lock()
        self._writers = _Writers()
        self._waiting: dict[str, Rows] = {}

    def read(self, prompt: str) -> Rows:
        """The encoded prompt, from the cache or made now."""
        if self._mode is Mode.FILLED:
            return self._cache.read(prompt)
        with self._lock:
            if self._mode is Mode.UNUSED:
                return self._encode([prompt])[0]
            if self._cache.has(prompt):
                return self._cache.read(prompt)
            if prompt not in self._waiting:
                self._encode_around(prompt)
            return self._waiting[prompt]

    def close(self) -> None:
        """Writes what is not written yet."""
        with self._lock:
            self._writers.close()
            self._waiting.clear()

    def _encode_around(self, prompt: str) -> None:
        batch = self._batches.get(prompt, [prompt])
        rows = self._encode(batch)
        writer = self._writers.of(self._cache.store, self._write_rows)
        self._waiting = {known: row for known, row in self._waiting.items() if not self._cache.has(known)}
        for one, row in zip(batch, rows, strict=True):
            self._waiting[one] = row
            if not self._cache.has(one):
                self._cache.put(one, row, writer)
        writer.end_batch()

    def _encode(self, batch: list[str]) -> list[Rows]:
        rows = self._cache.encode(batch, self._open_encoder())
        return [{name: tensor.clone() for name, tensor in row.items()} for row in rows]

    @cached_property
    def _batches(self) -> dict[str, list[str]]:
        return {prompt: batch for batch in cut(self._prompts(), self._batch_size) for prompt in batch}


class _Writers:
    """One open writer for each store."""

    def __init__(self) -> None:
        self._open: dict[int, Writer] = {}
        self._stack = contextlib.ExitStack()

    def of(self, store: Store, rows: int) -> Writer:
        if id(store) not in self._open:
            self._open[id(store)] = self._stack.enter_context(store.writer(rows))
        return self._open[id(store)]

    def close(self) -> None:
        self._open.clear()
        self._stack.close()
