"""Tells how far a caching stage is, about once a second."""

from __future__ import annotations

import time
from collections.abc import Callable

INTERVAL_S = 1.0

Report = Callable[[int, int], None]


class Progress:
    """Counts what is done and reports it now and then, and once at the end."""

    def __init__(self, total: int, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        self.done = 0
        self._total = total
        self._report = report
        self._clock = clock
        self._started_at = self._reported_at = clock()
        report(0, total)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started_at

    def advance(self, count: int) -> None:
        """Adds to what is done."""
        self.done += count
        if self._clock() - self._reported_at >= INTERVAL_S:
            self._reported_at = self._clock()
            self._report(self.done, self._total)

    def finish(self) -> None:
        """Reports the end."""
        self._report(self._total, self._total)
