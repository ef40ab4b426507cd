"""Learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig

SCHEDULE_FREE = "adamw_schedulefree"


def learning_rate(config: TrainingConfig, step: int, total_steps: int) -> float:
    """The rate of the update that follows `step` finished ones: linear warmup, then the schedule down to `lr_end`."""
    peak = config.learning_rate
    # A schedule-free optimizer averages its steps instead of shortening them.
    scheduler = "constant_with_warmup" if config.optimizer.startswith(SCHEDULE_FREE) else config.lr_scheduler
    if scheduler == "constant":
        return peak
    # The update itself is counted, so that the first one of a warmup is not lost to a rate of zero.
    number = min(step + 1, total_steps)
    warmup = min(config.lr_warmup_steps or 0, total_steps)
    if number <= warmup:
        return peak * number / warmup
    progress = (number - warmup) / max(total_steps - warmup, 1)
    end = min(config.lr_end or 0.0, peak)
    return end + (peak - end) * CURVES[scheduler](config, progress)


def _constant(config: TrainingConfig, progress: float) -> float:
    return 1.0


def _linear(config: TrainingConfig, progress: float) -> float:
    return 1.0 - progress


def _polynomial(config: TrainingConfig, progress: float) -> float:
    return float((1.0 - progress) ** config.lr_power)


def _cosine(config: TrainingConfig, progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _cosine_with_restarts(config: TrainingConfig, progress: float) -> float:
    if progress >= 1.0:
        return 0.0
    return _cosine(config, (progress * (config.lr_num_cycles or 1)) % 1.0)


def _sine(config: TrainingConfig, progress: float) -> float:
    """From the end rate up to the peak and back, `lr_num_cycles` times."""
    return 0.5 * (1.0 - math.cos(2.0 * math.pi * progress * (config.lr_num_cycles or 1)))


CURVES: dict[str, Callable[[TrainingConfig, float], float]] = {
    "constant_with_warmup": _constant,
    "linear": _linear,
    "polynomial": _polynomial,
    "cosine": _cosine,
    "cosine_with_warmup": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "sine": _sine,
}
