"""Which samples the n-th micro batch of a run holds: a pure function, so that nothing has to be saved or restored."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import numpy as np
import numpy.typing as npt

from flowtuner.engine.data.order import Indices, fraction, hash_words, permute
from flowtuner.engine.data.phases import Phase, Window, mix, plan_phases, share_by_length, share_evenly
from flowtuner.engine.data.sample import Sample, Shapes
from flowtuner.engine.data.samples import columns_of, select
from flowtuner.engine.data.settings import picture_entries
from flowtuner.errors import DataError
from flowtuner.options import DatasetEntry, TrainingConfig


@dataclass(frozen=True)
class Draw:
    """One place of a micro batch: a sample, and the caption and references chosen for it this time."""

    sample: Sample
    caption: str
    references: tuple[Sample, ...] = ()


class Sampler:
    """Draws micro batches: each of one bucket of one dataset, datasets mixed by their probability."""

    def __init__(
        self,
        samples: Sequence[Sample],
        entries: Sequence[DatasetEntry],
        batch_size: int,
        seed: int,
        *,
        processes: int = 1,
        accumulation: int = 1,
        oversubscribe: bool = False,
        keep_small_buckets: bool = False,
        one_reference: bool = False,
        evenly: bool = False,
        renewed: frozenset[str] = frozenset(),
    ) -> None:
        self._seed = seed
        self._streams: list[_Stream] = []
        weights: list[float] = []
        windows: list[Window] = []
        faults: list[str] = []
        columns = columns_of(samples)
        for entry in entries:
            rows = columns.rows_of(entry.id)
            if not len(rows):
                continue
            size = (entry.train_batch_size or batch_size) * processes
            repeats = entry.repeats
            own = _Own(select(samples, rows), columns.shapes, columns.shapes_of[rows])
            small = [] if keep_small_buckets else list(_find_small_buckets(own, repeats, size * accumulation))
            if small and oversubscribe and not repeats:
                repeats = max(needed for _, _, needed in small)
            else:
                faults += [_describe_small(entry.id, one, size, accumulation, repeats) for one in small]
            self._streams.append(
                _Stream(entry.id, own, repeats + 1, size, seed, one_reference, renews=entry.id in renewed)
            )
            weights.append(entry.probability)
            windows.append(Window.of(entry, accumulation))
        if faults:
            raise DataError(_with_remedies(faults))
        if not self._streams:
            raise DataError("no dataset has a usable picture.")
        lengths = [stream.length for stream in self._streams]
        self._phases = plan_phases(
            windows, partial(share_evenly if evenly else share_by_length, lengths, weights), seed
        )
        self._planned = (-1, -1)
        self._choice: Indices = np.empty(0, dtype=np.int64)
        self._rank: Indices = np.empty(0, dtype=np.int64)

    @classmethod
    def for_run(
        cls,
        samples: Sequence[Sample],
        entries: Sequence[DatasetEntry],
        config: TrainingConfig,
        seed: int,
        processes: int = 1,
    ) -> Self:
        """The sampler of a run's options, whose batches are those of all processes together.

        DataError if a bucket cannot fill a batch, or the data end before the run.
        """
        sampler = cls(
            samples,
            picture_entries(entries),
            config.train_batch_size,
            seed,
            processes=processes,
            accumulation=config.gradient_accumulation_steps,
            oversubscribe=config.allow_dataset_oversubscription,
            keep_small_buckets=config.disable_bucket_pruning,
            one_reference=config.conditioning_multidataset_sampling == "random",
            evenly=config.data_backend_sampling == "uniform",
            renewed=renewed_sets(entries),
        )
        steps = config.max_train_steps or 0
        last = steps * config.gradient_accumulation_steps or sampler.micro_batches_in(config.num_train_epochs)
        if last:
            sampler.batch(last - 1)  # a schedule that leaves the end of the run without data is said at once
        return sampler

    @property
    def micro_batches_per_epoch(self) -> int:
        """Micro batches in the first epoch: every dataset in use once over, times its probability."""
        return next((phase.length for phase in self._phases if phase.length), 0)

    def micro_batches_in(self, epochs: int) -> int:
        """Micro batches from the start of a run to the end of this many epochs."""
        phase = max((one for one in self._phases if one.epoch <= epochs), key=lambda one: one.first)
        return phase.first + (epochs - phase.epoch) * phase.length

    def batch(self, n: int) -> tuple[Draw, ...]:
        """The n-th micro batch of the whole run."""
        which = bisect.bisect_right(self._phases, n, key=lambda phase: phase.first) - 1
        phase = self._phases[which]
        if not phase.length:
            raise DataError(
                f"no dataset is in use in micro batch {n + 1}: every start_step, start_epoch, end_step and end_epoch "
                "leaves it out. Let one dataset run to the end, or make the run shorter."
            )
        epoch, place = divmod(n - phase.first, phase.length)
        if (which, epoch) != self._planned:
            self._plan_epoch(phase, epoch)
            self._planned = (which, epoch)
        chosen = int(self._choice[place])
        number = phase.drawn[chosen] + epoch * phase.quotas[chosen] + int(self._rank[place])
        return self._streams[chosen].batch(number)

    def _plan_epoch(self, phase: Phase, epoch: int) -> None:
        self._choice = mix(phase.quotas, self._seed, phase.epoch + epoch)
        self._rank = np.empty(phase.length, dtype=np.int64)
        for number, quota in enumerate(phase.quotas):
            self._rank[self._choice == number] = np.arange(quota)


def renewed_sets(entries: Sequence[DatasetEntry]) -> frozenset[str]:
    """The datasets whose random crops change with every pass (vae_cache_clear_each_epoch)."""
    return frozenset(
        entry.id
        for entry in picture_entries(entries)
        if entry.vae_cache_clear_each_epoch and entry.crop and entry.crop_style == "random"
    )


@dataclass(frozen=True)
class _Own:
    """The samples of one dataset, and the number of each one's shapes."""

    samples: Sequence[Sample]
    shapes: list[Shapes]
    shapes_of: Indices


class _Stream:
    """The endless sequence of batches of one dataset, pass after pass."""

    def __init__(
        self, name: str, own: _Own, copies: int, batch_size: int, seed: int, one_reference: bool, *, renews: bool
    ) -> None:
        self._renews = renews
        self._name = name
        self._samples = own.samples
        self._copies = copies
        self._batch_size = batch_size
        self._seed = seed
        self._one_reference = one_reference
        # Buckets are numbered by their shapes, whatever order they were found in.
        present = sorted(set(own.shapes_of.tolist()), key=lambda number: own.shapes[number])
        numbers = np.zeros(len(own.shapes), dtype=np.int64)
        numbers[present] = np.arange(len(present))
        self._bucket_of = numbers[own.shapes_of]
        counts = np.bincount(self._bucket_of) * copies
        # A bucket below one batch is only here when the user wants it kept: it is one short batch then.
        self.length = int(np.maximum(counts // batch_size, 1).sum())
        self._pass = -1
        self._batches: list[Indices] = []

    def batch(self, number: int) -> tuple[Draw, ...]:
        which, place = divmod(number, self.length)
        if which != self._pass:
            self._batches = self._plan_pass(which)
            self._pass = which
        items = [int(item) for item in self._batches[place]]
        return tuple(self._draw(which, item, items[0]) for item in items)

    def _plan_pass(self, which: int) -> list[Indices]:
        items = permute(len(self._samples) * self._copies, self._seed, "items", self._name, which)
        labels = self._bucket_of[items % len(self._samples)]
        by_bucket = items[np.argsort(labels, kind="stable")]
        edges = np.cumsum(np.bincount(labels))[:-1]
        batches = [batch for bucket in np.split(by_bucket, edges) for batch in self._cut(bucket)]
        return [batches[place] for place in permute(len(batches), self._seed, "batches", self._name, which)]

    def _cut(self, bucket: npt.NDArray[np.int64]) -> list[Indices]:
        # The tail is left out; the next pass shuffles anew, so that other samples are in it.
        whole = len(bucket) // self._batch_size
        return list(bucket[: whole * self._batch_size].reshape(whole, -1)) if whole else [bucket]

    def _draw(self, which: int, item: int, first: int) -> Draw:
        sample = self._samples[item % len(self._samples)]
        captions, references = sample.captions, sample.references
        caption = captions[0]
        if len(captions) > 1:
            caption = captions[hash_words(self._seed, "caption", self._name, which, item) % len(captions)]
        if self._one_reference and len(references) > 1:
            # References of several sizes cannot be stacked: there the batch's first sample chooses for all of it.
            chooser = item if len(set(sample.shapes[1:])) == 1 else first
            references = (
                references[hash_words(self._seed, "reference", self._name, which, chooser) % len(references)],
            )
        if self._renews and which:
            sample, references = self._renew(sample, references, which)
        return Draw(sample, caption, references)

    def _renew(self, sample: Sample, references: tuple[Sample, ...], which: int) -> tuple[Sample, tuple[Sample, ...]]:
        old = sample.plan
        rooms = old.resize[0] - old.crop[2], old.resize[1] - old.crop[3]
        left, top = (
            int(fraction(side, self._seed, sample.content, which) * (room + 1))
            for side, room in zip(("left", "top"), rooms, strict=True)
        )
        crop = (left, top, *old.bucket)
        # A strict reference shows the same part.
        alike = (
            replace(one, plan=replace(one.plan, crop=crop))
            if (one.plan.resize, one.plan.crop) == (old.resize, old.crop)
            else one
            for one in references
        )
        return replace(sample, plan=replace(old, crop=crop)), tuple(alike)


SmallBucket = tuple[Shapes, int, int]


def _find_small_buckets(own: _Own, repeats: int, needed: int) -> Iterator[SmallBucket]:
    counts = np.bincount(own.shapes_of, minlength=len(own.shapes)).tolist()
    for shapes, count in sorted(zip(own.shapes, counts, strict=True)):
        if count and count * (repeats + 1) < needed:
            yield shapes, count, -(-needed // count) - 1


def _describe_small(name: str, small: SmallBucket, size: int, accumulation: int, repeats: int) -> str:
    (shape, *others), count, needed = small
    bucket = _describe_shape(shape)
    beside = f" with references {', '.join(map(_describe_shape, others))}" if others else ""
    noun = "picture" if len(shape) == 2 else "film"
    held = f"{count} {noun}s" if count > 1 else f"1 {noun}"
    times = f" with repeats {repeats}" if repeats else ""
    return (
        f"dataset {name}: bucket {bucket}{beside} holds {held}{times}, less than train_batch_size {size} x "
        f"gradient_accumulation_steps {accumulation} = {size * accumulation}. Set repeats to at least {needed}."
    )


def _describe_shape(shape: tuple[int, ...]) -> str:
    width, height, *frames = shape
    return f"{width}x{height}" + (f" of {frames[0]} frames" if frames else "")


def _with_remedies(faults: list[str]) -> str:
    remedies = (
        "Or lower train_batch_size, crop all pictures to one aspect (crop, crop_aspect square), raise repeats "
        "automatically (allow_dataset_oversubscription) or train on small buckets as they are (disable_bucket_pruning)."
    )
    return "\n".join([*faults, remedies])
