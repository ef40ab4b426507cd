"""What is told to everybody who follows a job: each event read and encoded once, however many listen."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool

from flowtuner.jobs import store
from flowtuner.jobs.intake import picture_folder
from flowtuner.records.database import Database
from flowtuner.records.tables import JobEvent
from flowtuner.telling.reports import describe

PAGE = 500
KEPT_JOBS = 16
KEPT_FRAMES = 2000
KEPT_PICTURED = 8
PICTURED_BYTES = 1 << 16


@dataclass(frozen=True)
class Frame:
    """One event, ready to be sent."""

    job_id: str
    number: int
    type: str
    text: str

    @cached_property
    def sse(self) -> bytes:
        """As a server-sent event."""
        return f"id: {self.job_id}:{self.number}\nevent: {self.type}\ndata: {self.text}\n\n".encode()


@dataclass
class _Shelf:
    """One job's newest events, whose numbers have no gap, and who waits for more."""

    frames: OrderedDict[int, Frame] = field(default_factory=OrderedDict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: set[asyncio.Future[None]] = field(default_factory=set)

    def find(self, after: int, limit: int) -> list[Frame]:
        """The events behind a number, if the first of them is here."""
        if after + 1 not in self.frames:
            return []
        last = next(reversed(self.frames))
        return [self.frames[number] for number in range(after + 1, min(last, after + limit) + 1)]

    def keep(self, found: list[Frame]) -> None:
        """Adds events; those behind a gap replace what is here, older ones are not kept."""
        last = next(reversed(self.frames)) if self.frames else 0
        if found and found[0].number > last + 1:
            self.frames.clear()
        for frame in found:
            if not self.frames or frame.number == next(reversed(self.frames)) + 1:
                self.frames[frame.number] = frame
        pictured = [number for number, frame in self.frames.items() if len(frame.text) > PICTURED_BYTES]
        while len(self.frames) > KEPT_FRAMES or len(pictured) > KEPT_PICTURED:
            number, _ = self.frames.popitem(last=False)
            pictured = [each for each in pictured if each != number]


@dataclass
class Board:
    """The newest events of the jobs that somebody follows, in memory."""

    database: Database
    home: Path
    _loop: asyncio.AbstractEventLoop | None = None
    _shelves: OrderedDict[str, _Shelf] = field(default_factory=OrderedDict)

    def open(self) -> None:
        """Begins, in the server's event loop."""
        self._loop = asyncio.get_running_loop()

    def tell(self, job_id: str) -> None:
        """Wakes everybody who waits for events of a job; may be called from any thread."""
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, job_id)

    async def read(self, job_id: str, after: int, limit: int = PAGE) -> list[Frame]:
        """The events behind a number: from memory, where somebody asked for them before."""
        shelf = self._shelf(job_id)
        found = shelf.find(after, limit)
        if found:
            return found
        async with shelf.lock:
            found = shelf.find(after, limit)
            if not found:
                found = await run_in_threadpool(self._load, job_id, after, limit)
                shelf.keep(found)
        return found

    async def wait(self, job_id: str, seconds: float) -> bool:
        """Waits until there is news of a job; False if there was none in time."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        waiting = self._shelf(job_id).waiting
        waiting.add(future)
        alarm = loop.call_later(seconds, future.cancel)
        try:
            await future
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return False
        finally:
            alarm.cancel()
            waiting.discard(future)
        return True

    def _shelf(self, job_id: str) -> _Shelf:
        shelf = self._shelves.setdefault(job_id, _Shelf())
        self._shelves.move_to_end(job_id)
        if len(self._shelves) > KEPT_JOBS:
            idle = [each for each, old in self._shelves.items() if not old.waiting and not old.lock.locked()]
            for each in idle[: len(self._shelves) - KEPT_JOBS]:
                if each != job_id:
                    del self._shelves[each]
        return shelf

    def _load(self, job_id: str, after: int, limit: int) -> list[Frame]:
        with self.database.reading() as session:
            rows = store.read_events(session, job_id, after, limit)
        return [Frame(job_id, row.number, row.type, self._encode(row)) for row in rows]

    def _encode(self, row: JobEvent) -> str:
        return json.dumps(describe_event(row, self.home), separators=(",", ":"))

    def _wake(self, job_id: str) -> None:
        shelf = self._shelves.get(job_id)
        for future in shelf.waiting if shelf else ():
            if not future.done():
                future.set_result(None)


def describe_event(row: JobEvent, home: Path) -> dict[str, Any]:
    """An event as clients see it, with its pictures in it."""
    body = dict(row.body)
    pictures = [picture_folder(home, row.job_id) / name for name in body.pop("pictures", ())]
    return describe(row.number, row.type, row.job_id, row.time, body, pictures)
