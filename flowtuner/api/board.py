"""What is told to everybody who follows a job: each event read and encoded once, however many listen."""

from __future__ import annotations

import asyncio
import base64
import json
import mimetypes
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool

from flowtuner.jobs import store
from flowtuner.records.database import Database
from flowtuner.records.tables import JobEvent

PAGE = 500
KEPT_FRAMES = 2000
KEPT_PICTURED = 8
HEARTBEAT_S = 15.0


@dataclass(frozen=True)
class Frame:
    """One event, ready to be sent."""

    number: int
    type: str
    text: str

    def as_sse(self, job_id: str) -> bytes:
        """As a server-sent event."""
        return f"id: {job_id}:{self.number}\nevent: {self.type}\ndata: {self.text}\n\n".encode()


@dataclass
class Board:
    """The newest events of every job in memory, and who waits for more."""

    database: Database
    home: Path
    _loop: asyncio.AbstractEventLoop | None = None
    _waiting: dict[str, set[asyncio.Future[None]]] = field(default_factory=dict)
    _frames: dict[str, OrderedDict[int, Frame]] = field(default_factory=dict)
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    def open(self) -> None:
        """Begins, in the server's event loop."""
        self._loop = asyncio.get_running_loop()

    def tell(self, job_id: str) -> None:
        """Wakes everybody who waits for events of a job; may be called from any thread."""
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, job_id)

    async def read(self, job_id: str, after: int, limit: int = PAGE) -> list[Frame]:
        """The events behind a number: from memory, where somebody asked for them before."""
        kept = self._frames.setdefault(job_id, OrderedDict())
        found = _run_from(kept, after, limit)
        if found:
            return found
        async with self._locks.setdefault(job_id, asyncio.Lock()):
            found = _run_from(kept, after, limit)
            if not found:
                found = await run_in_threadpool(self._load, job_id, after, limit)
                self._keep(kept, found)
        return found

    async def wait(self, job_id: str, seconds: float) -> bool:
        """Waits until there is news of a job; False if there was none in time."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(job_id, set())
        waiting.add(future)
        try:
            await asyncio.wait_for(future, seconds)
        except TimeoutError:
            return False
        finally:
            waiting.discard(future)
        return True

    async def follow(self, job_id: str, after: int) -> AsyncIterator[Frame | None]:
        """All events behind a number, those to come included; None now and then, so that the line is not dead."""
        while True:
            frames = await self.read(job_id, after)
            for frame in frames:
                yield frame
                after = frame.number
            if not frames and not await self.wait(job_id, HEARTBEAT_S):
                yield None

    def _load(self, job_id: str, after: int, limit: int) -> list[Frame]:
        with self.database.reading() as session:
            rows = store.read_events(session, job_id, after, limit)
        return [Frame(row.number, row.type, self._encode(row)) for row in rows]

    def _encode(self, row: JobEvent) -> str:
        return json.dumps(describe_event(row, self.home), separators=(",", ":"))

    def _keep(self, kept: OrderedDict[int, Frame], frames: list[Frame]) -> None:
        for frame in frames:
            if not kept or frame.number == next(reversed(kept)) + 1:
                kept[frame.number] = frame
        pictured = [number for number, frame in kept.items() if len(frame.text) > 1 << 16]
        while len(kept) > KEPT_FRAMES or len(pictured) > KEPT_PICTURED:
            number, _ = kept.popitem(last=False)
            pictured = [each for each in pictured if each != number]

    def _wake(self, job_id: str) -> None:
        for future in self._waiting.get(job_id, ()):
            if not future.done():
                future.set_result(None)


def describe_event(row: JobEvent, home: Path) -> dict[str, Any]:
    """An event as clients see it, with its pictures in it."""
    body = dict(row.body)
    drawings = [_embed(home / "pictures" / row.job_id / name) for name in body.pop("pictures", ())]
    films = [each for each in drawings if each and each["mime_type"] == "image/gif"]
    return {
        "id": str(row.number),
        "type": row.type,
        "job_id": row.job_id,
        "timestamp": row.time.isoformat(),
        "title": body.pop("title", body.get("message", "")),
        "images": [each for each in drawings if each and each not in films],
        "videos": films,
        "audios": [],
    } | body


def _embed(path: Path) -> dict[str, str] | None:
    try:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError:
        return None
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return {"src": f"data:{kind};base64,{data}", "mime_type": kind}


def _run_from(kept: OrderedDict[int, Frame], after: int, limit: int) -> list[Frame]:
    # The numbers in memory have no gap, so the first one wanted says whether the rest is there.
    if after + 1 not in kept:
        return []
    last = next(reversed(kept))
    return [kept[number] for number in range(after + 1, min(last, after + limit) + 1)]
