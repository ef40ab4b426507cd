"""What a job reports: page by page, as server-sent events, or over a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from flowtuner.api.auth.caller import Caller
from flowtuner.api.board import PAGE, Board
from flowtuner.api.deps import DatabaseDep, Requires
from flowtuner.api.errors import refusals
from flowtuner.api.jobs import find_current
from flowtuner.records.database import Database

router = APIRouter(tags=["training"])
Viewer = Annotated[Caller, Depends(Requires("job.view.own"))]
Since = Annotated[int | None, Query()]
STREAMS = ("/api/training/events/stream", "/api/training/stream", "/api/events")
SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
IDLE_S = 2.0
HEARTBEAT = b'event: heartbeat\ndata: {"type":"heartbeat"}\n\n'


@router.get("/api/training/events", responses=refusals(401, 403, 404))
async def read_events(
    request: Request, caller: Viewer, database: DatabaseDep, since_index: int = 0, job_id: str | None = None
) -> Response:
    """The events behind the first `since_index`; ask again with `next_index` for those after."""
    board: Board = request.app.state.board
    found = await run_in_threadpool(_find, database, caller, job_id)
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
    job_id: str | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """The same as server-sent events, without end; a client that comes back names the last one it saw."""
    board: Board = request.app.state.board
    start = _Start.of(job_id, since_index, last_event_id)
    return StreamingResponse(
        _as_sse(board, database, caller, start, request.app.state.closing),
        media_type="text/event-stream",
        headers=SSE_HEADERS,
    )


async def stream_to_socket(
    socket: WebSocket, caller: Viewer, database: DatabaseDep, since_index: Since = None, job_id: str | None = None
) -> None:
    """The same over a WebSocket."""
    board: Board = socket.app.state.board
    await socket.accept()
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        async for job, text, _ in _follow(
            board, database, caller, _Start(job_id, since_index or 0), socket.app.state.closing
        ):
            message = f'{{"job_id":"{job}","event":{text}}}' if text else '{"type":"heartbeat"}'
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


class _Start:
    """Where a stream begins."""

    def __init__(self, job_id: str | None, after: int, is_named: bool = True) -> None:
        self.job_id = job_id
        self.after = max(after, 0)
        self.is_named = is_named and job_id is not None

    @classmethod
    def of(cls, job_id: str | None, since_index: int | None, last_event_id: str | None) -> _Start:
        seen_job, _, number = (last_event_id or "").rpartition(":")
        if not number.isdigit():
            return cls(job_id, since_index or 0)
        # A browser that was following whatever runs comes back with the job that it followed.
        return cls(job_id or seen_job or None, int(number), is_named=job_id is not None)


async def _as_sse(
    board: Board, database: Database, caller: Caller, start: _Start, closing: asyncio.Event
) -> AsyncIterator[bytes]:
    yield b'event: connection\ndata: {"type":"connection"}\n\n'
    async for _, _, message in _follow(board, database, caller, start, closing):
        yield message


async def _follow(
    board: Board, database: Database, caller: Caller, start: _Start, closing: asyncio.Event
) -> AsyncIterator[tuple[str, str, bytes]]:
    job_id, after, beats = start.job_id, start.after, 0.0
    while not closing.is_set():
        if job_id is None:
            found = await run_in_threadpool(_find, database, caller, None)
            job_id = found[0] if found else None
        frames = await board.read(job_id, after) if job_id else []
        for frame in frames:
            yield str(job_id), frame.text, frame.as_sse(str(job_id))
            after = frame.number
        if frames:
            beats = 0.0
            continue
        if job_id and await board.wait(job_id, IDLE_S):
            continue
        if job_id is None:
            await asyncio.sleep(IDLE_S)
        beats += IDLE_S
        if beats >= 14:
            beats = 0.0
            yield "", "", HEARTBEAT
        if not start.is_named and job_id:
            newer = await run_in_threadpool(_find, database, caller, None)
            if newer and newer[0] != job_id:
                job_id, after = newer[0], 0


def _find(database: Database, caller: Caller, job_id: str | None) -> tuple[str, int] | None:
    with database.reading() as session:
        job = find_current(session, caller, job_id)
        return (job.id, job.last_event) if job else None
