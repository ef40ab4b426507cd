"""Which datasets are in use when: their schedules, turned into stretches of micro batches with a fixed mix each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from flowtuner.engine.data.order import Indices, permute
from flowtuner.options import DatasetEntry


@dataclass(frozen=True)
class Window:
    """From when to when a dataset is in use: micro batches and epochs, counted from 0, the ends excluded."""

    first: int = 0
    end: int | None = None
    first_epoch: int = 0
    end_epoch: int | None = None

    @classmethod
    def of(cls, entry: DatasetEntry, accumulation: int) -> Window:
        """The window of an entry; steps and epochs are counted from 1 there, the last ones included."""
        return cls(
            first=max(0, (entry.start_step or 1) - 1) * accumulation,
            end=entry.end_step * accumulation if entry.end_step else None,
            first_epoch=max(0, (entry.start_epoch or 1) - 1),
            end_epoch=entry.end_epoch or None,
        )

    def covers(self, number: int, epoch: int) -> bool:
        """Whether the dataset is in use in this micro batch of this epoch."""
        started = number >= self.first and epoch >= self.first_epoch
        return (
            started and (self.end is None or number < self.end) and (self.end_epoch is None or epoch < self.end_epoch)
        )


@dataclass(frozen=True)
class Phase:
    """A stretch in which the mix of datasets stays the same."""

    first: int
    """Its first micro batch."""
    epoch: int
    """Its first epoch."""
    quotas: tuple[int, ...]
    """Micro batches of each dataset in one epoch; 0 for those that are not in use."""
    drawn: tuple[int, ...]
    """How many micro batches each dataset had given before."""

    @property
    def length(self) -> int:
        """Micro batches in one epoch."""
        return sum(self.quotas)


def mix(quotas: Sequence[int], seed: int, epoch: int) -> Indices:
    """Whose turn it is in each micro batch of an epoch."""
    datasets = np.repeat(np.arange(len(quotas)), quotas)
    return datasets[permute(len(datasets), seed, "mix", epoch)]


def plan_phases(
    windows: Sequence[Window], share_out: Callable[[Sequence[bool]], Sequence[int]], seed: int
) -> list[Phase]:
    """The phases of a run, the last one without an end; a set that comes or goes within an epoch begins a new one."""
    numbers = {at for one in windows for at in (one.first, one.end) if at}
    epochs = {at for one in windows for at in (one.first_epoch, one.end_epoch) if at}
    phase = Phase(0, 0, (), tuple(0 for _ in windows))
    phases: list[Phase] = []
    while True:
        quotas = share_out([one.covers(phase.first, phase.epoch) for one in windows])
        phase = Phase(phase.first, phase.epoch, tuple(quotas), phase.drawn)
        phases.append(phase)
        by_number = min((at for at in numbers if at > phase.first), default=None)
        by_epoch = min((at for at in epochs if at > phase.epoch), default=None) if phase.length else None
        if by_number is None and by_epoch is None:
            return phases
        phase = _next_phase(phase, by_number, by_epoch, seed)


def _next_phase(phase: Phase, by_number: int | None, by_epoch: int | None, seed: int) -> Phase:
    if by_epoch is not None:
        whole = by_epoch - phase.epoch
        due = phase.first + whole * phase.length
        if by_number is None or due <= by_number:
            return Phase(due, by_epoch, (), _add(phase.drawn, phase.quotas, whole))
    assert by_number is not None
    if not phase.length:
        return Phase(by_number, phase.epoch, (), phase.drawn)
    whole, rest = divmod(by_number - phase.first, phase.length)
    begun = np.bincount(mix(phase.quotas, seed, phase.epoch + whole)[:rest], minlength=len(phase.quotas))
    drawn = _add(_add(phase.drawn, phase.quotas, whole), begun.tolist(), 1)
    return Phase(by_number, phase.epoch + whole + bool(rest), (), drawn)


def _add(drawn: Sequence[int], quotas: Sequence[int], times: int) -> tuple[int, ...]:
    return tuple(before + times * quota for before, quota in zip(drawn, quotas, strict=True))


def share_by_length(lengths: Sequence[int], weights: Sequence[float], active: Sequence[bool]) -> list[int]:
    """Every dataset once over, times its probability."""
    shares = zip(lengths, weights, active, strict=True)
    return [max(1, round(length * weight)) if used else 0 for length, weight, used in shares]


def share_evenly(lengths: Sequence[int], weights: Sequence[float], active: Sequence[bool]) -> list[int]:
    """As many micro batches as all datasets have together, shared by probability alone."""
    used = [weight if is_used else 0.0 for weight, is_used in zip(weights, active, strict=True)]
    if not any(used):
        return [0 for _ in used]
    whole = sum(length for length, is_used in zip(lengths, active, strict=True) if is_used)
    edges = [round(whole * edge / sum(used)) for edge in accumulate(used)]
    shares = [end - start for start, end in zip([0, *edges], edges, strict=False)]
    return [max(1, share) if weight else 0 for share, weight in zip(shares, used, strict=True)]
