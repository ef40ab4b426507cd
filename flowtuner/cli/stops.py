"""SIGTERM and Ctrl-C: the first asks the run to save and leave, a second Ctrl-C saves nothing more."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType, TracebackType
from typing import Any, Self

from flowtuner.cli.exits import Exit
from flowtuner.cli.output import tell
from flowtuner.cli.processes import end_engines


class Preempted(BaseException):
    """SIGTERM reached a run outside of its flow; no Exception, so that nothing on the way swallows it."""


class Stops:
    """Handles the signals of one run; Prefect's own SIGTERM handler, inside the flow, hands them on to ours."""

    def __init__(self) -> None:
        self.is_preempted = False
        self.interrupts = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number, handle in ((signal.SIGTERM, self._on_sigterm), (signal.SIGINT, self._on_sigint)):
            # Only the main thread may; elsewhere the signals are the embedding program's.
            with contextlib.suppress(ValueError):
                self._before[number] = signal.signal(number, handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self.interrupts > 0

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if not self.is_preempted:
            self.is_preempted = True
            raise Preempted

    def _on_sigint(self, number: int, frame: FrameType | None) -> None:
        self.interrupts += 1
        if self.interrupts == 1:
            tell("\ninterrupted: saving a checkpoint (Ctrl-C again stops at once and saves nothing)")
        elif self.interrupts == 2:
            # Nothing is left to wait for once the engine is gone; what else we started still gets its orderly end.
            end_engines(os.getpid())
            tell("\nstopped at once: steps since the last checkpoint are lost")
        else:
            os._exit(Exit.INTERRUPTED)
        raise KeyboardInterrupt
