"""The arithmetic of a run: how many steps it has and where its legs end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flowtuner.options import TrainingConfig


@dataclass(frozen=True)
class Leg:
    """The stretch to the next checkpoint or validation."""

    until: int
    saves: bool
    validates: bool


@dataclass(frozen=True)
class Pace:
    """How often a run saves that chooses for itself: by time or by share of the run, whichever comes sooner."""

    seconds: float
    share: float
    first_steps: int = 50
    """Where the first checkpoint is due at the latest, while nobody knows yet how long a step takes."""


def steps_per_epoch(config: TrainingConfig, micro_batches_per_epoch: int) -> float:
    """Optimizer updates in one pass over the data; an accumulation may reach into the next pass."""
    return micro_batches_per_epoch / config.gradient_accumulation_steps


def count_steps(config: TrainingConfig, micro_batches: int) -> int:
    """Optimizer updates of the whole run: `max_train_steps`, or what the micro batches of all epochs amount to."""
    if config.max_train_steps:
        return config.max_train_steps
    return math.ceil(steps_per_epoch(config, micro_batches))


def legs(config: TrainingConfig, start_step: int, total_steps: int, steps_in_epoch: float) -> Iterator[Leg]:
    """Yields the legs from `start_step` to the end; the last one always saves."""
    saves = _marks(config.checkpoint_step_interval, config.checkpoint_epoch_interval, total_steps, steps_in_epoch)
    validates = _validation_marks(config, total_steps, steps_in_epoch)
    saves.add(total_steps)
    for step in sorted(saves | validates):
        if start_step < step <= total_steps:
            yield Leg(step, saves=step in saves, validates=step in validates)


def paced_legs(
    config: TrainingConfig,
    start_step: int,
    total_steps: int,
    steps_in_epoch: float,
    pace: Pace,
    clock: Callable[[], float],
) -> Iterator[Leg]:
    """Yields legs whose length follows from how long the one before took; the last one always saves."""
    validates = _validation_marks(config, total_steps, steps_in_epoch)
    longest = max(1, math.ceil(total_steps * pace.share))
    step, interval = start_step, min(longest, pace.first_steps)
    while step < total_steps:
        began, due = clock(), min(step + interval, total_steps)
        for mark in sorted(validates):
            if step < mark < due:
                yield Leg(mark, saves=False, validates=True)
        yield Leg(due, saves=True, validates=due in validates)
        seconds_per_step = max((clock() - began) / (due - step), 1e-9)
        step, interval = due, max(1, min(longest, int(pace.seconds / seconds_per_step)))


def _validation_marks(config: TrainingConfig, total_steps: int, steps_in_epoch: float) -> set[int]:
    if config.validation_disable:
        return set()
    marks = _marks(config.validation_step_interval, config.validation_epoch_interval, total_steps, steps_in_epoch)
    return marks | {total_steps}


def _marks(every_steps: int | None, every_epochs: int | None, total_steps: int, steps_in_epoch: float) -> set[int]:
    marks: set[int] = set()
    if every_steps:
        marks |= set(range(every_steps, total_steps + 1, every_steps))
    if every_epochs:
        epochs = math.ceil(total_steps / steps_in_epoch)
        marks |= {math.ceil(epoch * steps_in_epoch) for epoch in range(every_epochs, epochs + 1, every_epochs)}
    return {mark for mark in marks if mark <= total_steps}
