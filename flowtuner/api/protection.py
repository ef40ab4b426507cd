"""What every request passes before its route: a limit on its size; and what every answer carries for browsers."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowtuner.api.errors import TOO_LARGE, reply

BODY_BYTES = 16 << 20
LIMIT = f"A request may bring {BODY_BYTES >> 20} MiB"
STREAMED = ("/api/datasets/upload", "/api/datasets/upload/zip")
"""These read their body as it comes, and have limits of their own."""

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Protection:
    """Wraps the application; knows no route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or has the application answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["path"] in STREAMED:
            await self._app(scope, receive, send_guarded)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > BODY_BYTES:
            await reply(413, TOO_LARGE, LIMIT)(scope, receive, send_guarded)
            return
        await self._app(scope, _limited(receive), send_guarded)


def _limited(receive: Receive) -> Receive:
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > BODY_BYTES:
            # Of this kind alone the framework lets it through from where it reads the body.
            raise HTTPException(413, LIMIT)
        return message

    return receive_limited
