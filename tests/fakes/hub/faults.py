"""What the Hub fake can be told to do wrong, and the log of the requests it saw."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass
class Fault:
    """What happens to requests whose "METHOD /path" matches: the `nth` one and those after it, `times` times.

    `status` is the answer; with `is_late`, it is given after the work was done. `held` keeps the request until it is
    set, `then` is called in either case.
    """

    match: str
    status: int | None = None
    times: int = 1
    nth: int = 1
    is_late: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    held: threading.Event | None = None
    then: Callable[[], None] = lambda: None

    def takes(self, request: str) -> bool:
        """Whether this request is meant; counts it."""
        if self.times <= 0 or not re.search(self.match, request):
            return False
        self.nth -= 1
        if self.nth > 0:
            return False
        self.times -= 1
        return True


@dataclass
class Traffic:
    """The requests that were seen and the faults that are left."""

    log: list[tuple[str, int]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def count(self, match: str) -> int:
        """How many requests were answered whose "METHOD /path" matches."""
        return sum(re.search(match, request) is not None for request, _ in self.log)

    def clear(self) -> None:
        """Forgets the log and the faults."""
        self.log, self.faults = [], []


class Watched:
    """Middleware: logs every request and does to it what the faults say."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self._app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        name = f"{request.method} {request.url.path}"
        fault = next((fault for fault in self._traffic.faults if fault.takes(name)), None)

        async def send_logged(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._traffic.log.append((name, message["status"]))
            await send(message)

        if fault is None:
            await self._app(scope, receive, send_logged)
        else:
            await _break(fault, self._app, scope, receive, send_logged)


async def _break(fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    import anyio.to_thread

    if fault.held:
        await anyio.to_thread.run_sync(fault.held.wait, 60)
    answer: Response | None = None
    if fault.status is not None:
        answer = JSONResponse({"error": "injected"}, fault.status, fault.headers)
    if answer is None or fault.is_late:
        await app(scope, receive, send if answer is None else _swallow)
    fault.then()
    if answer is not None:
        await answer(scope, receive, send)


async def _swallow(message: Message) -> None:
    """Takes an answer that nobody is to see."""
