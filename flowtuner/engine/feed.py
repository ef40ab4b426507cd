"""Turns the sampler's draws into tensors, straight from the memory-mapped caches."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from flowtuner.engine.data.sample import Sample
from flowtuner.engine.data.sampler import Draw, Sampler
from flowtuner.engine.family import Family
from flowtuner.engine.ranks import Ranks, Share
from flowtuner.engine.seed import uniform

CAPTION_DROPOUT = 2

Rows = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Batch:
    """One micro batch."""

    latents: torch.Tensor
    text: Rows
    is_regularisation: bool = False
    """Whether the untrained model is the teacher of this batch."""
    share: Share | None = None
    """Which places of the micro batch these are, where several processes share it."""

    def to(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """The batch on a device; numbers that are no measure stay what they are."""
        text = {
            name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype, non_blocking=True)
            for name, tensor in self.text.items()
        }
        return replace(self, latents=self.latents.to(device, dtype, non_blocking=True), text=text)


class Feed:
    """Makes the n-th micro batch of the run; the same n always gives the same batch."""

    def __init__(
        self,
        sampler: Sampler,
        family: Family,
        read_latent: Callable[[Sample], torch.Tensor],
        read_text: Callable[[str], Rows],
        dropout: float,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        regularisation: frozenset[str] = frozenset(),
        ranks: Ranks = Ranks(),  # noqa: B008  frozen
        ahead: int = 0,
    ) -> None:
        self._ranks = ranks
        self._ahead = ahead
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches") if ahead else None
        self._coming: dict[int, Future[Batch]] = {}
        self._regularisation = regularisation
        self.sampler = sampler
        self._family = family
        self._read_latent = read_latent
        self._read_text = read_text
        self._dropout = dropout
        self._seed = seed
        self._device = device
        self._dtype = dtype

    def batch(self, number: int) -> Batch:
        """The micro batch with this number, or this process's share of it, on the device."""
        gathered = self._take(number) if self._thread else self._gather(number)
        return gathered.to(self._device, self._dtype)

    def close(self) -> None:
        """Ends the thread that gathers ahead."""
        if self._thread:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def _take(self, number: int) -> Batch:
        assert self._thread is not None
        wanted = range(number, number + self._ahead + 1)
        for passed in [known for known in self._coming if known not in wanted]:
            self._coming.pop(passed).cancel()
        for coming in wanted:
            if coming not in self._coming:
                self._coming[coming] = self._thread.submit(self._gather, coming)
        return self._coming.pop(number).result()

    def _gather(self, number: int) -> Batch:
        draws = self.sampler.batch(number)
        share = self._ranks.share(len(draws))
        places = range(share.start, share.stop)
        latents = torch.stack([self._read_latent(draws[place].sample) for place in places])
        rows = [self._row(draws[place], number, place) for place in places]
        is_held = draws[0].sample.dataset_id in self._regularisation
        shared = None if self._ranks.world == 1 else share
        return Batch(latents, self._family.collate_text(rows), is_held, shared)

    def _row(self, draw: Draw, number: int, place: int) -> Rows:
        row = self._read_text(self._caption(draw, number, place)) | self._family.describe_picture(draw.sample.plan)
        if not draw.references:
            return row
        return self._family.add_references(row, [self._read_latent(reference) for reference in draw.references])

    def _caption(self, draw: Draw, number: int, place: int) -> str:
        if self._dropout and uniform(self._seed, CAPTION_DROPOUT, number, place) < self._dropout:
            return ""
        return draw.caption
