"""Turns the sampler's draws into tensors, straight from the memory-mapped caches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from flowtuner.engine.data.sample import Sample
from flowtuner.engine.data.sampler import Draw, Sampler
from flowtuner.engine.family import Family
from flowtuner.engine.seed import uniform

CAPTION_DROPOUT = 2

Rows = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Batch:
    """One micro batch on the device."""

    latents: torch.Tensor
    text: Rows
    is_regularisation: bool = False
    """Whether the untrained model is the teacher of this batch."""


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
    ) -> None:
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
        """Gathers the micro batch with this number."""
        draws = self.sampler.batch(number)
        latents = torch.stack([self._read_latent(draw.sample) for draw in draws])
        rows = [self._row(draw, number, place) for place, draw in enumerate(draws)]
        text = self._family.collate_text(rows)
        return Batch(
            latents.to(self._device, self._dtype, non_blocking=True),
            {name: self._moved(tensor) for name, tensor in text.items()},
            draws[0].sample.dataset_id in self._regularisation,
        )

    def _row(self, draw: Draw, number: int, place: int) -> Rows:
        row = self._read_text(self._caption(draw, number, place)) | self._family.describe_picture(draw.sample.plan)
        if not draw.references:
            return row
        return self._family.add_references(row, [self._read_latent(reference) for reference in draw.references])

    def _caption(self, draw: Draw, number: int, place: int) -> str:
        if self._dropout and uniform(self._seed, CAPTION_DROPOUT, number, place) < self._dropout:
            return ""
        return draw.caption

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        dtype = self._dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(self._device, dtype, non_blocking=True)
