"""One micro batch of a run as it will be, before any picture or caption is encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch

from flowtuner.engine.data.sample import FilmPlan, Plan, Sample, Scan
from flowtuner.engine.family import Family, Rows
from flowtuner.engine.feed import Batch


@dataclass(frozen=True)
class Work:
    """The largest pictures of a run and what a prompt is at most."""

    family: Family
    largest: Sample
    batch_size: int
    pixels: int
    """Of all pictures and references together."""

    captions: int
    """Different ones."""

    text_shapes: Mapping[str, tuple[int, ...]]
    """What the row of the longest prompt holds."""

    @classmethod
    def of(cls, family: Family, scan: Scan) -> Work:
        """Finds it among all samples, looked at one by one."""
        largest, pixels = None, 0
        captions: set[int] = set()
        for sample in scan.samples:
            pixels += sum(_size(each.plan) for each in (sample, *sample.references))
            captions.update(hash(caption) for caption in sample.captions)
            if largest is None or _weight(sample) > _weight(largest):
                largest = sample
        assert largest is not None, "a scan without samples is refused"
        model = family.build_model(torch.get_default_dtype(), torch.device("meta"))
        shapes = family.text_shapes(model, family.max_text_tokens)
        return cls(family, largest, family.config.train_batch_size, pixels, len(captions), shapes)

    @property
    def largest_pixels(self) -> int:
        """How many the largest picture has."""
        return _size(self.largest.plan)

    def draw_pixels(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """Grey pictures or films of the largest size, as the autoencoder takes them."""
        return torch.zeros(count, *_pixel_shape(self.largest.plan), dtype=dtype)

    def draw_row(self, latent: torch.Size, dtype: torch.dtype) -> Rows:
        """The row of the longest prompt, with the picture's own numbers and what it is drawn after."""
        row = {name: torch.zeros(shape, dtype=dtype) for name, shape in self.text_shapes.items()}
        row |= self.family.describe_picture(self.largest.plan)
        if not self.largest.references:
            return row
        return self.family.add_references(
            row, [self._reference(each, latent, dtype) for each in self.largest.references]
        )

    def batch(self, latent: torch.Size, dtype: torch.dtype) -> Batch:
        """A micro batch on the CPU."""
        row = self.draw_row(latent, dtype)
        latents = torch.zeros(self.batch_size, *latent, dtype=dtype)
        return Batch(latents, self.family.collate_text([row] * self.batch_size))

    def _reference(self, sample: Sample, latent: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        if self.family.config.controlnet:
            return torch.zeros(_pixel_shape(sample.plan), dtype=dtype)
        width, height = (
            own * edge // whole
            for own, edge, whole in zip(sample.bucket, latent[:-3:-1], self.largest.bucket, strict=True)
        )
        return torch.zeros(*latent[:-2], height, width, dtype=dtype)


def _pixel_shape(plan: Plan) -> tuple[int, ...]:
    width, height = plan.bucket
    return (3, plan.frames, height, width) if isinstance(plan, FilmPlan) else (3, height, width)


def _size(plan: Plan) -> int:
    return prod(plan.shape)


def _weight(sample: Sample) -> int:
    return sum(_size(each.plan) for each in (sample, *sample.references))
