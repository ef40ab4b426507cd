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
from flowtuner.engine.trackers import COMET, TENSORBOARD, WANDB, wanted_trackers
from flowtuner.errors import FlowtunerError
from flowtuner.options import LoadedConfig
from tasks.comet_run import CometRun
from tasks.tensorboard import Board
from tasks.wandb_run import WandbRun

FLUSH_EVERY_S = 5.0
JOIN_S = 20.0


class Tracker(Protocol):
    """What is told of a run, somewhere; goes on after the event `seq` that it was told last."""

    @property
    def seq(self) -> int:
        """The last event that was told."""

    def take_note(self, event: Event) -> None:
        """Tells what an event has to show."""

    def flush(self) -> None:
        """Notes how far everything has been told."""

    def close(self) -> None:
        """Ends the telling."""


Open = Callable[[Path, LoadedConfig], Tracker]
TRACKERS: Mapping[str, Open] = MappingProxyType(
    {TENSORBOARD: lambda folder, loaded: Board(folder), WANDB: WandbRun.open, COMET: CometRun.open}
)


@contextlib.contextmanager
def tracked(events: EventLog, loaded: LoadedConfig) -> Iterator[None]:
    """Has the trackers that `report_to` names told what is appended to the log."""
    logs = Path(loaded.config.logging_dir or Path(loaded.config.output_dir) / "logs")
    stop = threading.Event()
    listeners = Listeners(events)
    threads = []
    for name in wanted_trackers(loaded.config):
        work = (events, name, logs / name, loaded, stop, listeners)
        threads.append(threading.Thread(target=_follow, args=work, name=name, daemon=True))
        threads[-1].start()
    try:
        yield
    finally:
        stop.set()
        deadline = time.monotonic() + JOIN_S
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
            if thread.is_alive():
                listeners.hear(thread.name, f"not everything arrived within {JOIN_S:.0f} s.", logs / thread.name)
        listeners.leave()


class Listeners:
    """Whoever hears of a tracker's trouble, until the run is over."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._lock = threading.Lock()
        self._are_gone = False

    def hear(self, name: str, problem: object, folder: Path) -> None:
        """Warns of a tracker that is not up to date."""
        with self._lock:
            if not self._are_gone:
                message = f"{name} is not up to date: {problem} Its files are in {folder}; training goes on."
                self._events.notify("warning", message)

    def leave(self) -> None:
        """The log is about to be closed."""
        with self._lock:
            self._are_gone = True


def _follow(
    events: EventLog,
    name: str,
    folder: Path,
    loaded: LoadedConfig,
    stop: threading.Event,
    listeners: Listeners,
) -> None:
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
        listeners.hear(name, error, folder)
