"""A proxy for HTTP that breaks chosen requests: cut, refused, answered into the void, held up, or with wrong bytes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Literal, Self

BLOCK = 1 << 16
HEADERS_LIMIT = 1 << 20

Action = Literal["cut", "status", "drop_reply", "stall", "garble"]


@dataclass
class Rule:
    """Which requests are broken, and how: the `nth` match and those after it, `times` times."""

    action: Action
    method: str = ""
    path: str = ""
    nth: int = 1
    times: int = 1
    after: int = 0
    code: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""

    def takes(self, method: str, path: str) -> bool:
        """Whether this request is to be broken; counts it."""
        if self.times <= 0 or self.method not in ("", method) or not re.search(self.path, path):
            return False
        self.nth -= 1
        if self.nth > 0:
            return False
        self.times -= 1
        return True


@dataclass(frozen=True)
class Seen:
    """One request that came by."""

    method: str
    path: str
    size: int
    action: Action | None


class FaultProxy:
    """Stands before a server on this machine; context manager."""

    def __init__(self, upstream: int) -> None:
        self.rules: list[Rule] = []
        self.log: list[Seen] = []
        self.port = 0
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._released = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def payload(self) -> int:
        """Bytes of request bodies that came by."""
        return sum(seen.size for seen in self.log)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._released.set)
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()
        self._loop.close()

    def clear(self) -> None:
        """Forgets rules and log, and lets go what was held up."""
        self.rules, self.log = [], []

    def _stop(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()

    def _serve(self) -> None:
        async def main() -> None:
            server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=HEADERS_LIMIT)
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await server.serve_forever()

        asyncio.set_event_loop(self._loop)
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(main())

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)
        with contextlib.suppress(*gone):
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream, limit=HEADERS_LIMIT)
            with contextlib.closing(up_writer):
                while await self._exchange(reader, writer, up_reader, up_writer):
                    pass
        writer.close()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        size = _content_length(head)
        rule = next((rule for rule in self.rules if rule.takes(method, path)), None)
        self.log.append(Seen(method, path, size, rule.action if rule else None))
        if b"expect: 100-continue" in head.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = re.sub(rb"(?i)expect: 100-continue\r\n", b"", head)
        if rule and rule.action == "status":
            await _drain(reader, size)
            writer.write(_answer(rule))
            await writer.drain()
            return True
        up_writer.write(head)
        if not await self._pass_body(reader, up_writer, size, rule):
            _reset(up_writer)
            _reset(writer)
            return False
        reply = await _read_reply_head(up_reader)
        if rule and rule.action == "drop_reply":
            _reset(writer)
            return False
        writer.write(reply)
        await _pass_reply_body(up_reader, writer, reply, is_head=method == "HEAD")
        return True

    async def _pass_body(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int, rule: Rule | None
    ) -> bool:
        sent = 0
        while sent < size:
            data = await reader.read(min(size - sent, BLOCK))
            if not data:
                return False
            if rule and rule.action == "garble" and sent + len(data) >= size // 2:
                data, rule = bytes([data[0] ^ 1]) + data[1:], None
            writer.write(data)
            await writer.drain()
            sent += len(data)
            if rule and rule.action in ("cut", "stall") and sent >= rule.after:
                if rule.action == "stall":
                    await self._released.wait()
                return False
        return not (rule and rule.action == "cut")


def _content_length(head: bytes) -> int:
    found = re.search(rb"\r\ncontent-length: *(\d+)", head.lower())
    return int(found[1]) if found else 0


def _answer(rule: Rule) -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in rule.headers.items())
    return f"HTTP/1.1 {rule.code} Broken\r\n{headers}Content-Length: {len(rule.body)}\r\n\r\n{rule.body}".encode()


async def _drain(reader: asyncio.StreamReader, size: int) -> None:
    while size:
        size -= len(await reader.read(min(size, BLOCK)))


async def _read_reply_head(reader: asyncio.StreamReader) -> bytes:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 100"):
            return head


async def _pass_reply_body(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, *, is_head: bool
) -> None:
    status = head.split(b" ", 2)[1]
    if not is_head and status not in (b"204", b"304"):
        if b"transfer-encoding: chunked" in head.lower():
            while True:
                line = await reader.readline()
                chunk = int(line.strip() or b"0", 16)
                writer.write(line + await reader.readexactly(chunk + 2))
                if not chunk:
                    break
        left = _content_length(head)
        while left:
            data = await reader.readexactly(min(left, BLOCK))
            writer.write(data)
            left -= len(data)
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    # Without lingering, closing becomes a reset: what the other side has sent is lost, as with a pulled cable.
    handle = writer.get_extra_info("socket")
    if handle is not None:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
