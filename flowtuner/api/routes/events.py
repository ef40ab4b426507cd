"""What a job reports: page by page, as server-sent events, or over a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Self

from fastapi import APIRouter, Depends, Header, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool
from fastapi.requests import HTTPConnection
from fastapi.responses import StreamingResponse

from flowtuner.api.auth.caller import Caller
from flowtuner.api.board import PAGE, Board, Frame
from flowtuner.api.deps import DatabaseDep, MemoryDep, Requires
from flowtuner.api.errors import refusals
from flowtuner.api.jobs import JobId, find_current, find_job
from flowtuner.records.database import Database

router = APIRouter(tags=["training"])
Viewer = Annotated[Caller, Depends(Requires("job.view.own"))]
Since = Annotated[int | None, Query(description="How many events were seen already.")]
STREAMS = ("/api/training/events/stream", "/api/training/stream", "/api/events")
SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
IDLE_S = 2.0
BEATS = 7


@router.get("/api/training/events", responses=refusals(401, 403, 404))
async def read_events(
    request: Request,
    caller: Viewer,
    database: DatabaseDep,
    memory: MemoryDep,
    since_index: int = 0,
    job_id: JobId = None,
) -> Response:
    """The events behind the first `since_index`; ask again with `next_index` for those after."""
    board: Board = request.app.state.board
    find = partial(_find, database, caller, job_id)
    found = await memory.ask(("newest event", caller.sight, job_id), find)
    if found is None:
        return Response('{"events":[],"job_id":null,"next_index":0}', media_type="application/json")
    current, newest = found
    after = min(max(since_index, 0), newest)
    frames = await board.read(current, after, PAGE) if after < newest else []
    end = frames[-1].number if frames else after
    text = ",".join(frame.text for frame in frames)
    body = f'{{"events":[{text}],"job_id":"{current}","next_index":{end},"has_more":{str(end < newest).lower()}}}'
    return Response(body, media_type="application/json")


async def stream_events(
    request: Request,
    caller: Viewer,
    database: DatabaseDep,
    since_index: Since = None,
    job_id: JobId = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """The same as server-sent events, without end; a client that comes back names the last one it saw."""
    start = _Start.of(job_id, since_index, last_event_id)
    await run_in_threadpool(start.require_visible, database, caller)
    return StreamingResponse(
        _as_sse(_Follower(request, database, caller), start), media_type="text/event-stream", headers=SSE_HEADERS
    )


async def stream_to_socket(
    socket: WebSocket, caller: Viewer, database: DatabaseDep, since_index: Since = None, job_id: JobId = None
) -> None:
    """The same over a WebSocket."""
    start = _Start.of(job_id, since_index)
    await run_in_threadpool(start.require_visible, database, caller)
    await socket.accept()
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        async for frame in _Follower(socket, database, caller).follow(start):
            message = f'{{"job_id":"{frame.job_id}","event":{frame.text}}}' if frame else '{"type":"heartbeat"}'
            await socket.send_text(message)


for path in STREAMS:
    router.add_api_route(
        path,
        stream_events,
        methods=["GET"],
        responses=refusals(401, 403, 404),
        response_class=StreamingResponse,
        include_in_schema=path == STREAMS[0],
    )
    router.add_api_websocket_route(path, stream_to_socket)


@dataclass(frozen=True)
class _Start:
    """Where a stream begins: at which job, behind which number, and whether it stays with that job."""

    job_id: str | None
    after: int
    stays: bool

    @classmethod
    def of(cls, job_id: str | None, since_index: int | None, last_event_id: str | None = None) -> Self:
        seen_job, _, number = (last_event_id or "").rpartition(":")
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            return cls(job_id, max(since_index or 0, 0), stays=job_id is not None)
        # A browser that was following whatever runs comes back with the job that it followed.
        return cls(job_id or seen_job or None, int(number), stays=job_id is not None)

    def require_visible(self, database: Database, caller: Caller) -> None:
        """404 for a job that the sender may not see."""
        if self.job_id is not None:
            with database.reading() as session:
                find_job(session, caller, self.job_id)


class _Follower:
    """One client's way through the events of a job, or of whichever is the newest."""

    def __init__(self, connection: HTTPConnection, database: Database, caller: Caller) -> None:
        self._board: Board = connection.app.state.board
        self._closing: asyncio.Event = connection.app.state.closing
        self._database = database
        self._caller = caller

    async def follow(self, start: _Start) -> AsyncIterator[Frame | None]:
        """All events behind the start, without end; None now and then, so that the line is not dead."""
        job_id, after, quiet = start.job_id or await self._newest(), start.after, 0
        while not self._closing.is_set():
            frames = await self._board.read(job_id, after) if job_id else []
            for frame in frames:
                yield frame
                after, quiet = frame.number, 0
            if frames or await self._is_news(job_id):
                continue
            quiet += 1
            if quiet % BEATS == 0:
                yield None
            if not start.stays and (newest := await self._newest()) != job_id:
                job_id, after = newest, 0

    async def _is_news(self, job_id: str | None) -> bool:
        if job_id:
            return await self._board.wait(job_id, IDLE_S)
        await asyncio.sleep(IDLE_S)
        return False

    async def _newest(self) -> str | None:
        found = await run_in_threadpool(_find, self._database, self._caller, None)
        return found[0] if found else None


async def _as_sse(follower: _Follower, start: _Start) -> AsyncIterator[bytes]:
    yield b'event: connection\ndata: {"type":"connection"}\n\n'
    async for frame in follower.follow(start):
        yield frame.sse if frame else b'event: heartbeat\ndata: {"type":"heartbeat"}\n\n'


def _find(database: Database, caller: Caller, job_id: str | None) -> tuple[str, int] | None:
    with database.reading() as session:
        job = find_current(session, caller, job_id)
        return (job.id, job.last_event) if job else None
