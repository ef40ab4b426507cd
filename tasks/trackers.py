"""Trackers: each follows the run's log in a thread of its own, and none can hold training up."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from flowtuner.engine.events import Event, EventLog, follow_events
from flowtuner.engine.limits import wanted_trackers
from flowtuner.errors import FlowtunerError
from flowtuner.options import LoadedConfig
from tasks.tensorboard import Board
from tasks.wandb_run import WandbRun

FLUSH_EVERY_S = 5.0
JOIN_S = 20.0


class Tracker(Protocol):
    """What is told of a run, somewhere; goes on after the event `seq` that it was told last."""

    seq: int

    def take_note(self, event: Event) -> None:
        """Tells what an event has to show."""

    def flush(self) -> None:
        """Notes how far everything has been told."""

    def close(self) -> None:
        """Ends the telling."""


Open = Callable[[Path, LoadedConfig], Tracker]
TRACKERS: Mapping[str, Open] = MappingProxyType(
    {"tensorboard": lambda folder, loaded: Board(folder), "wandb": WandbRun.open}
)


@contextlib.contextmanager
def tracked(events: EventLog, loaded: LoadedConfig) -> Iterator[None]:
    """Has the trackers that `report_to` names told what is appended to the log."""
    logs = Path(loaded.config.logging_dir or Path(loaded.config.output_dir) / "logs")
    stop = threading.Event()
    threads = []
    for name in wanted_trackers(loaded.config):
        work = (events, name, logs / name, loaded, stop)
        threads.append(threading.Thread(target=_follow, args=work, name=name, daemon=True))
        threads[-1].start()
    try:
        yield
    finally:
        stop.set()
        deadline = time.monotonic() + JOIN_S
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))


def _follow(events: EventLog, name: str, folder: Path, loaded: LoadedConfig, stop: threading.Event) -> None:
    try:
        tracker = TRACKERS[name](folder, loaded)
        flushed_at = time.monotonic()
        for event in follow_events(events.path, tracker.seq, stop):
            tracker.take_note(event)
            if time.monotonic() - flushed_at >= FLUSH_EVERY_S:
                tracker.flush()
                flushed_at = time.monotonic()
        tracker.close()
    except (FlowtunerError, OSError, RuntimeError, ValueError) as error:
        events.notify("warning", f"{name} is not up to date: {error} Its files are in {folder}; training goes on.")
