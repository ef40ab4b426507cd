"""How a run is stopped: what asked for it, how long it may still take, and what a second request means."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Literal, Self

from prefect.exceptions import TerminationSignal

Reason = Literal["terminated", "interrupted", "cancelled", "time limit"]

REPEAT_S = 0.5
"""One stop often arrives twice, at the process and at its group; what comes later was meant."""
SHARE_TO_LEAVE, MOST_TO_LEAVE_S = 1 / 6, 2.0


class Grace:
    """The time that a stopped run has left; SIGTERM starts it, a second one ends it at once."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self.hurry = threading.Event()
        self.reason: Reason = "terminated"
        self._clock = clock
        self._began: float | None = None
        self._expected = 0
        self._on_hurry: Callable[[], None] = lambda: None
        self._before: Any = None

    def __enter__(self) -> Self:
        # Elsewhere than in the main thread the signals are the surrounding program's.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._on_sigterm)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    @property
    def has_begun(self) -> bool:
        """Whether the run is being stopped."""
        return self._began is not None

    @property
    def left_s(self) -> float:
        """Seconds left for work; a little is kept for telling the end and leaving."""
        if self._began is None:
            return self.seconds
        if self.hurry.is_set():
            return 0.0
        leaving = min(self.seconds * SHARE_TO_LEAVE, MOST_TO_LEAVE_S)
        return max(0.0, self.seconds - leaving - (self._clock() - self._began))

    def begin(self, reason: Reason | None = None) -> None:
        """Starts the time, once; who was asked to stop before it was begun says why."""
        if self._began is None:
            self.reason = reason or self.reason
            self._began = self._clock()

    def ask(self, reason: Reason, *, is_repeated: bool = False) -> None:
        """Stops this process's run as SIGTERM does; `is_repeated` says that somebody else will send one too."""
        if self._began is None:
            self.reason = reason
            self._expected += is_repeated
            os.kill(os.getpid(), signal.SIGTERM)

    def when_hurried(self, act: Callable[[], None]) -> None:
        """What a second request does."""
        self._on_hurry = act

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if self._began is None:
            self.begin()
            raise TerminationSignal(signal=number)
        if self._expected:
            self._expected -= 1
        elif self._clock() - self._began >= REPEAT_S:
            self.hurry.set()
            self._on_hurry()
