"""The numbered, durable log of what a run did; every channel that reports is a reader of it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

STAGE = "lifecycle.stage"
PROGRESS = "training.progress"
METRIC = "training.metric"
CHECKPOINT = "training.checkpoint"
VALIDATION = "training.validation"
STATUS = "training.status"
NOTIFICATION = "notification"
PUBLISH = "publish.status"
SCRIPT = "script.status"

TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class Event:
    """One line of the log; `seq` counts up by one over the log's whole life, `run` tells resumed runs apart."""

    seq: int
    time: float
    run: str
    type: str
    data: dict[str, Any]


class EventLog:
    """Writes a log file: numbers what it is given and continues where the file ends, also if others write to it.

    A disk that is full loses no event and ends no run: what cannot be written waits for the next event.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path = path
        self.run = run
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._seq = _repair_tail(path)
        self._file = path.open("ab", buffering=0)
        self._size = os.fstat(self._file.fileno()).st_size
        self._waiting = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, type: str, data: dict[str, Any]) -> Event:
        """Numbers an event and writes it through to the operating system."""
        with self._lock, self._alone():
            self._seq += 1
            event = Event(self._seq, time.time(), self.run, type, data)
            self._waiting += json.dumps(asdict(event), default=str).encode() + b"\n"
            self._write_waiting()
            return event

    def stage(self, key: str, status: str, label: str, current: int = 0, total: int = 0) -> Event:
        """Reports that a stage of the run began, moved on or ended."""
        return self.append(STAGE, {"key": key, "status": status, "label": label, "current": current, "total": total})

    def notify(self, severity: str, message: str) -> Event:
        """Reports something a person should read."""
        return self.append(NOTIFICATION, {"severity": severity, "message": message})

    def close(self) -> None:
        """Flushes the log to the disk and closes it."""
        with self._lock:
            if self._file.closed:
                return
            with self._alone(), contextlib.suppress(OSError):
                self._write_waiting()
                os.fsync(self._file.fileno())
            self._file.close()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            if os.fstat(self._file.fileno()).st_size != self._size:  # another run's log on the same file
                self._seq = max(self._seq, last_seq(self.path))
            yield
            self._size = os.fstat(self._file.fileno()).st_size
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _write_waiting(self) -> None:
        with contextlib.suppress(OSError):
            while self._waiting:
                del self._waiting[: self._file.write(self._waiting)]


def read_events(path: Path, after: int = 0) -> Iterator[Event]:
    """Yields the complete events of a log whose number is above `after`."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            event = _parse(line)
            if event and event.seq > after:
                yield event


def follow_events(path: Path, after: int, stop: threading.Event, poll_s: float = 0.2) -> Iterator[Event]:
    """Yields events as they are written, until `stop` is set and nothing is left to read."""
    tail = Tail(path)
    while True:
        is_last_look = stop.is_set()
        yield from (event for event in tail.read() if event.seq > after)
        if is_last_look:
            return
        stop.wait(poll_s)


@dataclass
class Tail:
    """Reads a log from where it last was; a line that is still being written waits for its end."""

    path: Path
    offset: int = 0

    def read(self) -> list[Event]:
        """The events that came since."""
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self.offset:
                    self.offset = 0  # the log was made anew
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data.rfind(b"\n") + 1
        self.offset += whole
        lines = data[:whole].decode("utf-8", errors="replace").splitlines()
        return [event for event in map(_parse, lines) if event]


def last_seq(path: Path) -> int:
    """The number of the newest complete event of a log, 0 if there is none."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - TAIL_BYTES))
        lines = file.read().decode("utf-8", errors="replace").split("\n")
    for line in reversed(lines):
        event = _parse(line)
        if event:
            return event.seq
    return max((event.seq for event in read_events(path)), default=0)


def _parse(line: str) -> Event | None:
    # A line cut by a kill is no event: its writer never finished it, so nobody has acted on it.
    if not line.strip():
        return None
    try:
        return Event(**json.loads(line))
    except (json.JSONDecodeError, TypeError):
        return None


def _repair_tail(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb+") as file:
        file.seek(0, os.SEEK_END)
        if file.tell() and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
            file.write(b"\n")
    return last_seq(path)
