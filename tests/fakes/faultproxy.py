"""A proxy for HTTP that breaks chosen requests: cut, refused, answered into the void, held up, or with wrong bytes.

It knows no provider: tests of all of them stand it before their server. A revoked credential is a rule that refuses
the requests that carry it, by `carries`; where it is replaced, the rule no longer matches.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal, Self

BLOCK = 1 << 16
HEADERS_LIMIT = 1 << 20
GONE = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)

Action = Literal["cut", "status", "drop_reply", "stall", "garble", "cut_reply", "garble_reply"]


@dataclass
class Rule:
    """Which requests are broken, and how: the `nth` match and those after it, `times` times.

    cut: the connection is reset once `after` bytes of the body have gone to the server. status: the answer is `code`
    with `headers` and `body`; the server never sees the request. drop_reply: the server does its work, the client
    hears nothing. stall: nothing moves any more after `after` bytes until the proxy is closed. garble: a byte of the
    body is changed. cut_reply and garble_reply: the same to the answer's body.
    """

    action: Action
    method: str = ""
    path: str = ""
    nth: int = 1
    times: int = 1
    after: int = 0
    code: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    carries: str = ""

    def takes(self, method: str, path: str, head: str) -> bool:
        """Whether this request is to be broken; counts it."""
        if self.times <= 0 or self.method not in ("", method):
            return False
        if not re.search(self.path, path) or not re.search(self.carries, head):
            return False
        self.nth -= 1
        if self.nth > 0:
            return False
        self.times -= 1
        return True


@dataclass
class Seen:
    """One request that came by; `size` and `reply_size` count the bytes of the bodies that were passed on."""

    method: str
    path: str
    action: Action | None
    size: int = 0
    status: int = 0
    reply_size: int = 0


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
        """Forgets rules and log."""
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
        with contextlib.suppress(*GONE):
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream, limit=HEADERS_LIMIT)
            with contextlib.closing(up_writer):
                exchange = _Exchange(reader, writer, up_reader, up_writer)
                while await self._pass_on(exchange):
                    pass
        writer.close()

    async def _pass_on(self, exchange: _Exchange) -> bool:
        head = await exchange.reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        rule = next((rule for rule in self.rules if rule.takes(method, path, head.decode("latin-1"))), None)
        seen = Seen(method, path, rule.action if rule else None)
        self.log.append(seen)
        if b"expect: 100-continue" in head.lower():
            exchange.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = re.sub(rb"(?i)expect: 100-continue\r\n", b"", head)
        if rule and rule.action == "status":
            await exchange.refuse(head, rule, seen)
            return True
        if not await exchange.pass_request(head, rule, seen, self._released):
            exchange.reset()
            return False
        if not await exchange.pass_reply(rule, seen):
            exchange.reset()
            return False
        return True


@dataclass(frozen=True)
class _Exchange:
    """The four ends of a connection through the proxy."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    up_reader: asyncio.StreamReader
    up_writer: asyncio.StreamWriter

    async def refuse(self, head: bytes, rule: Rule, seen: Seen) -> None:
        async for _, payload in _body(self.reader, head):
            seen.size += len(payload)
        seen.status, seen.reply_size = rule.code, len(rule.body)
        self.writer.write(_answer(rule))
        await self.writer.drain()

    async def pass_request(self, head: bytes, rule: Rule | None, seen: Seen, released: asyncio.Event) -> bool:
        self.up_writer.write(head)
        is_garbled = False
        async for raw, payload in _body(self.reader, head):
            if rule and rule.action == "garble" and payload and not is_garbled:
                raw, is_garbled = raw.replace(payload, _flipped(payload), 1), True
            self.up_writer.write(raw)
            await self.up_writer.drain()
            seen.size += len(payload)
            if rule and rule.action in ("cut", "stall") and seen.size >= rule.after:
                break
        if rule and rule.action == "stall":
            await released.wait()
        return not (rule and rule.action in ("cut", "stall"))

    async def pass_reply(self, rule: Rule | None, seen: Seen) -> bool:
        reply = await _read_reply_head(self.up_reader)
        seen.status = int(reply.split(b" ", 2)[1])
        if rule and rule.action == "drop_reply":
            return False
        self.writer.write(reply)
        has_body = seen.method != "HEAD" and seen.status not in (204, 304)
        is_garbled = False
        async for raw, payload in _body(self.up_reader, reply if has_body else b""):
            if rule and rule.action == "garble_reply" and payload and not is_garbled:
                raw, is_garbled = raw.replace(payload, _flipped(payload), 1), True
            if rule and rule.action == "cut_reply" and seen.reply_size + len(payload) > rule.after:
                break
            seen.reply_size += len(payload)
            self.writer.write(raw)
            await self.writer.drain()
        await self.writer.drain()
        return not (rule and rule.action == "cut_reply")

    def reset(self) -> None:
        # Without lingering, closing becomes a reset: what the other side has sent is lost, as with a pulled cable.
        for writer in (self.up_writer, self.writer):
            handle = writer.get_extra_info("socket")
            if handle is not None:
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


async def _body(reader: asyncio.StreamReader, head: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
    """The body that belongs to a head, piece by piece: as it stands on the wire, and the bytes it carries."""
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        while True:
            line = await reader.readline()
            size = int(line.split(b";")[0].strip() or b"0", 16)
            if not size:
                yield line + await _trailers(reader), b""
                return
            payload = await reader.readexactly(size)
            yield line + payload + await reader.readexactly(2), payload
    found = re.search(rb"\r\ncontent-length: *(\d+)", head.lower())
    left = int(found[1]) if found else 0
    while left:
        data = await reader.read(min(left, BLOCK))
        if not data:
            raise ConnectionError
        left -= len(data)
        yield data, data


async def _trailers(reader: asyncio.StreamReader) -> bytes:
    lines = b""
    while not lines.endswith(b"\r\n\r\n") and lines != b"\r\n":
        line = await reader.readline()
        if not line:
            raise ConnectionError
        lines += line
    return lines


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _answer(rule: Rule) -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in rule.headers.items())
    return f"HTTP/1.1 {rule.code} Broken\r\n{headers}Content-Length: {len(rule.body)}\r\n\r\n{rule.body}".encode()


async def _read_reply_head(reader: asyncio.StreamReader) -> bytes:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 100"):
            return head
