"""Reads the losses of past steps now and then, so that no step waits for a number."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from flowtuner.engine.events import METRIC, PROGRESS
from flowtuner.errors import EngineFault

FLUSH_EVERY_S = 1.0
SMOOTHING = 0.2

Emit = Callable[[str, dict[str, Any]], None]


class Meter:
    """Collects what each step measured and reports it about once a second."""

    def __init__(self, emit: Emit, total_steps: int, steps_per_epoch: float, clock: Callable[[], float]) -> None:
        self._emit = emit
        self._total_steps = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._clock = clock
        self._pending: list[tuple[int, torch.Tensor, float, torch.Tensor | None]] = []
        self._flushed_at = clock()
        self._speed = 0.0
        self._fault: str | None = None
        self.loss = math.nan

    def record(self, step: int, loss: torch.Tensor, rate: float, norm: torch.Tensor | None) -> None:
        """Takes note of a step without reading from the device."""
        self._pending.append((step, loss, rate, norm))
        if self._clock() - self._flushed_at >= FLUSH_EVERY_S:
            self.flush()

    def restart_clock(self) -> None:
        """Begins a new stretch, so that time spent elsewhere does not count as slow steps."""
        self._flushed_at = self._clock()

    def flush(self) -> None:
        """Reads what is pending, reports it, and refuses a loss that is not a number, from then on every time."""
        if self._fault:
            raise EngineFault(self._fault)
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        losses = torch.stack([loss for _, loss, _, _ in pending]).tolist()
        now = self._clock()
        self._count_speed(len(pending), now - self._flushed_at)
        self._flushed_at = now
        for (step, _, rate, norm), loss in zip(pending, losses, strict=True):
            self._report(step, loss, rate, norm)
        self._report_progress(pending[-1][0], losses[-1], pending[-1][2])

    def _report(self, step: int, loss: float, rate: float, norm: torch.Tensor | None) -> None:
        if not math.isfinite(loss):
            self._fault = (
                f"the loss became {loss} at step {step}: training would only destroy the weights. The last "
                "checkpoint is whole. Lower learning_rate, set mixed_precision=bf16 or no, or lower max_grad_norm."
            )
            raise EngineFault(self._fault)
        self.loss = loss
        # Infinite where float16 overflowed and the step was left out; JSON has no word for it.
        gradient = float(norm) if norm is not None and bool(norm.isfinite()) else None
        self._emit(METRIC, {"step": step, "loss": loss, "learning_rate": rate, "grad_norm": gradient})

    def _report_progress(self, step: int, loss: float, rate: float) -> None:
        left = self._total_steps - step
        self._emit(
            PROGRESS,
            {
                "step": step,
                "total_steps": self._total_steps,
                "epoch": int(step // self._steps_per_epoch) + 1,
                "loss": loss,
                "learning_rate": rate,
                "steps_per_s": round(self._speed, 3),
                "eta_s": round(left / self._speed, 1) if self._speed else None,
            },
        )

    def _count_speed(self, steps: int, seconds: float) -> None:
        speed = steps / max(seconds, 1e-9)
        self._speed = speed if not self._speed else SMOOTHING * speed + (1 - SMOOTHING) * self._speed


def wall_clock() -> float:
    """The clock of real runs."""
    return time.monotonic()
