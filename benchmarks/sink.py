"""A server that speaks enough S3 and Azure Blob to take uploads and throws them away: what is measured is the client.

`python -m benchmarks.sink CERTIFICATE KEY [MIB_PER_S]` prints its port; with a rate, that is all it takes. Names, sizes
and manifests are kept; digests that come with an upload are given back as a service would give them that had checked
them, but nothing is hashed here.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import parse_qs, unquote, urlsplit

BUFFER_BYTES = 1 << 20
WINDOW = 4096
KEPT = ("manifest.json",)
ECHOED = ("x-amz-checksum-sha256", "x-amz-checksum-crc32", "x-amz-checksum-type", "content-md5", "x-ms-content-crc64")
STATUS = "/__status"

Feed = Generator[None, memoryview, None]


@dataclass
class Stored:
    """What is known of an object."""

    size: int
    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    blocks: dict[str, int] = field(default_factory=dict)


@dataclass
class Contents:
    """All objects, unfinished parts, and what has come by."""

    objects: dict[str, Stored] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)
    blocks: dict[str, dict[str, int]] = field(default_factory=dict)
    requests: int = 0
    payload: int = 0
    bytes_per_s: float = 0
    busy_until: float = 0

    def forget(self) -> None:
        """Begins again."""
        self.objects, self.parts, self.blocks, self.requests, self.payload = {}, {}, {}, 0, 0


@dataclass(frozen=True)
class Request:
    """One request whose body has been read and, unless it is small talk, forgotten."""

    method: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    size: int
    body: bytes


Answer = tuple[int, dict[str, str], bytes]


class Sink(asyncio.BufferedProtocol):
    """One connection."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._rest = self._buffer[:0]
        self._feed = self._serve()
        next(self._feed)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remembers where answers go."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """The one buffer of this connection."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Goes on with what has arrived."""
        self._feed.send(self._buffer[:nbytes])
        if self._contents.bytes_per_s:
            self._slow_down(nbytes)

    def _slow_down(self, size: int) -> None:
        contents, loop = self._contents, asyncio.get_running_loop()
        contents.busy_until = max(contents.busy_until, loop.time()) + size / contents.bytes_per_s
        wait_s = contents.busy_until - loop.time()
        if wait_s > 0.02 and self._transport.is_reading():
            self._transport.pause_reading()
            loop.call_later(wait_s, self._transport.resume_reading)

    def _serve(self) -> Feed:
        while True:
            head = yield from self._until(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
            method, target, _ = first.split(" ", 2)
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            url = urlsplit(target)
            query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
            key = unquote(url.path)
            if headers.get("expect", "").lower() == "100-continue":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            kept = bytearray() if key.endswith(KEPT) or method == "POST" else None
            size = yield from self._body(headers, kept)
            body = bytes(kept or b"")
            if "aws-chunked" in headers.get("content-encoding", ""):
                size, body = int(headers["x-amz-decoded-content-length"]), _unwrapped(body)
            self._reply(Request(method, key, query, headers, size, body))

    def _body(self, headers: Mapping[str, str], kept: bytearray | None) -> Generator[None, memoryview, int]:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            size = int(headers.get("content-length", 0))
            yield from self._take(size, kept)
            return size
        total = 0
        while size := int((yield from self._until(b"\n")).split(b";")[0], 16):
            yield from self._take(size, kept)
            yield from self._take(2, None)
            total += size
        while (yield from self._until(b"\n")).strip():  # digests that follow the body
            pass
        return total

    def _take(self, size: int, kept: bytearray | None) -> Feed:
        while size:
            if not self._rest:
                self._rest = yield
            piece = self._rest[:size]
            self._rest = self._rest[len(piece) :]
            size -= len(piece)
            if kept is not None:
                kept += piece

    def _until(self, mark: bytes) -> Generator[None, memoryview, bytes]:
        found = b""
        while True:
            if not self._rest:
                self._rest = yield
            before, found = len(found), found + bytes(self._rest[:WINDOW])
            end = found.find(mark)
            if end >= 0:
                self._rest = self._rest[end + len(mark) - before :]
                return found[:end]
            self._rest = self._rest[WINDOW:]

    def _reply(self, request: Request) -> None:
        contents = self._contents
        if request.key == STATUS:
            seen = {"requests": contents.requests, "payload": contents.payload, "objects": len(contents.objects)}
            seen["bytes"] = sum(stored.size for stored in contents.objects.values())
            answer: Answer = (200, {}, json.dumps(seen).encode())
            if "keep" not in request.query:
                contents.forget()
        else:
            contents.requests += 1
            contents.payload += request.size
            answer = _azure(contents, request) if "x-ms-version" in request.headers else _s3(contents, request)
        code, headers, body = answer
        now = formatdate(usegmt=True)
        headers = {"content-length": str(len(body)), "Date": now, "x-ms-request-id": "1", "Server": "sink"} | headers
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._transport.write(f"HTTP/1.1 {code} X\r\n{head}\r\n".encode() + (b"" if request.method == "HEAD" else body))


def _s3(contents: Contents, request: Request) -> Answer:
    handle = {"PUT": _s3_put, "POST": _s3_post, "GET": _s3_get, "HEAD": _head}.get(request.method)
    return handle(contents, request) if handle else (204, {}, b"")


def _s3_put(contents: Contents, request: Request) -> Answer:
    echoed = {name: request.headers[name] for name in ECHOED if name in request.headers}
    etag = '"00000000000000000000000000000000-1"'  # no MD5, so that nobody compares it with one
    if "uploadId" in request.query:
        _add_part(contents, request)
    else:
        contents.objects[request.key] = Stored(request.size, echoed, request.body)
    return 200, {"ETag": etag, **echoed}, b""


def _s3_post(contents: Contents, request: Request) -> Answer:
    name = request.key.strip("/").partition("/")[2]
    if "uploads" in request.query:
        text = f"<Bucket>b</Bucket><Key>{name}</Key><UploadId>u{contents.requests}</UploadId>"
        return _xml("InitiateMultipartUploadResult", text)
    echoed = {name: request.headers[name] for name in ECHOED if name in request.headers}
    contents.objects[request.key] = Stored(contents.parts.pop(request.key, 0), echoed)
    text = f"<Location>x</Location><Bucket>b</Bucket><Key>{name}</Key><ETag>&quot;0-9&quot;</ETag>"
    return _xml("CompleteMultipartUploadResult", text)


def _s3_get(contents: Contents, request: Request) -> Answer:
    if "uploads" in request.query:
        return _xml("ListMultipartUploadsResult", "<IsTruncated>false</IsTruncated>")
    if request.key in contents.objects:
        return 200, {}, contents.objects[request.key].data
    if request.key.strip("/").count("/"):
        return 404, {}, b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>"
    if "location" in request.query:
        return _xml("LocationConstraint", "us-east-1")
    root = request.key.rstrip("/") + "/"
    started = request.query.get("start-after")
    after = request.query.get("continuation-token") or (root + started if started else "")
    found = sorted(key for key in contents.objects if key.startswith(root + request.query.get("prefix", "")))
    page = [key for key in found if key > after][:1000]
    more = bool(page) and page[-1] != found[-1]
    items = "".join(
        f"<Contents><Key>{key.removeprefix(root)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;0-1&quot;</ETag><Size>{contents.objects[key].size}</Size></Contents>"
        for key in page
    )
    token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if more else ""
    return _xml("ListBucketResult", f"<Name>b</Name><IsTruncated>{str(more).lower()}</IsTruncated>{token}{items}")


def _azure(contents: Contents, request: Request) -> Answer:
    echoed = {name: request.headers[name] for name in ECHOED if name in request.headers}
    known = {"ETag": '"0"', "Last-Modified": formatdate(usegmt=True)}
    if request.method == "HEAD":
        return _head(contents, request)
    if request.method == "GET":
        return _azure_get(contents, request)
    if request.method != "PUT":
        return 202, {}, b""
    comp = request.query.get("comp")
    if comp == "block":
        _add_part(contents, request)
        contents.blocks.setdefault(request.key, {})[request.query["blockid"]] = request.size
    elif "restype" not in request.query:
        size = contents.parts.pop(request.key, 0) if comp == "blocklist" else request.size
        md5 = request.headers.get("x-ms-blob-content-md5") or request.headers.get("content-md5")
        blocks = contents.blocks.pop(request.key, {})
        contents.objects[request.key] = Stored(size, {"Content-MD5": md5} if md5 else {}, request.body, blocks)
    return 201, known | echoed, b""


def _azure_get(contents: Contents, request: Request) -> Answer:
    comp = request.query.get("comp")
    if comp == "list":
        root = request.key.rstrip("/") + "/"
        prefix = root + request.query.get("prefix", "")
        items = "".join(
            f"<Blob><Name>{key.removeprefix(root)}</Name><Properties><Content-Length>{stored.size}</Content-Length>"
            "<Etag>0</Etag><Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT</Last-Modified><BlobType>BlockBlob</BlobType>"
            "</Properties></Blob>"
            for key, stored in contents.objects.items()
            if key.startswith(prefix)
        )
        return _xml("EnumerationResults", f"<Blobs>{items}</Blobs><NextMarker/>")
    if comp == "blocklist" and request.query.get("blocklisttype") == "committed":
        blocks = sorted(contents.objects[request.key].blocks.items(), key=lambda block: base64.b64decode(block[0]))
        items = "".join(f"<Block><Name>{name}</Name><Size>{size}</Size></Block>" for name, size in blocks)
        return _xml("BlockList", f"<CommittedBlocks>{items}</CommittedBlocks>")
    if request.key not in contents.objects or comp == "blocklist":
        return 404, {"x-ms-error-code": "BlobNotFound"}, b""
    stored = contents.objects[request.key]
    span = f"bytes 0-{len(stored.data) - 1}/{len(stored.data)}"
    is_part = "x-ms-range" in request.headers or "range" in request.headers
    return 206 if is_part else 200, {"Content-Range": span} if is_part else {}, stored.data


def _head(contents: Contents, request: Request) -> Answer:
    stored = contents.objects.get(request.key)
    if stored is None:
        return 404, {"x-ms-error-code": "BlobNotFound"}, b""
    kind = {"content-length": str(stored.size), "ETag": '"0-1"', "x-ms-blob-type": "BlockBlob"}
    return 200, {**kind, "Last-Modified": formatdate(usegmt=True), **stored.headers}, b""


def _add_part(contents: Contents, request: Request) -> None:
    contents.parts[request.key] = contents.parts.get(request.key, 0) + request.size


def _unwrapped(body: bytes) -> bytes:
    # S3's clients put chunks of their own, each behind its size, into the body.
    data = b""
    while body:
        line, _, body = body.partition(b"\r\n")
        size = int(line.split(b";")[0] or b"0", 16)
        if not size:
            break
        data, body = data + body[:size], body[size + 2 :]
    return data


def _xml(root: str, content: str) -> Answer:
    text = f'<?xml version="1.0" encoding="UTF-8"?><{root}>{content}</{root}>'
    return 200, {"Content-Type": "application/xml"}, text.encode()


async def _main(certificate: str, key: str, mib_per_s: str = "0") -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    contents = Contents(bytes_per_s=float(mib_per_s) * (1 << 20))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Sink(contents), "127.0.0.1", 0, ssl=context, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:4]))
