"""Follows a run's event log in a thread and shows it."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from flowtuner.cli.display import Display
from flowtuner.cli.summary import Summary
from flowtuner.engine.events import follow_events, last_seq

JOIN_TIMEOUT_S = 5.0


class Watch:
    """Shows what is appended to a log between entering and leaving."""

    def __init__(self, log: Path, display: Display, summary: Summary) -> None:
        self._log = log
        self._display = display
        self._summary = summary
        self._stop = threading.Event()
        self._after = last_seq(log)
        self._thread = threading.Thread(target=self._follow, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(JOIN_TIMEOUT_S)
        self._display.close()

    def _follow(self) -> None:
        for event in follow_events(self._log, self._after, self._stop):
            self._summary.take(event)
            self._display.show(event)
