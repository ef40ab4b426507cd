"""As much of Azure Blob in this process as the default lane needs; what is subtle is tested on Azurite."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

ACCOUNT = "devstoreaccount1"
SIGNED = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
    "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip
KEPT = ("x-ms-blob-content-type", "x-ms-blob-content-md5", "x-ms-access-tier")


@dataclass
class Blob:
    """A blob, or one that is still to be: then it has no data."""

    data: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    committed: dict[str, bytes] = field(default_factory=dict)
    waiting: dict[str, bytes] = field(default_factory=dict)


class BlobServer(ThreadingHTTPServer):
    """One account; `containers` holds everything."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: that clients vanish is what some tests are about."""

    def __init__(self, key: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key = base64.b64decode(key)
        self.lock = threading.Lock()
        self.containers: dict[str, dict[str, Blob]] = {}


@contextlib.contextmanager
def blob_server(key: str) -> Iterator[BlobServer]:
    """Runs a server that knows this key."""
    with BlobServer(key) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Refused(Exception):  # noqa: N818
    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: BlobServer

    def do_GET(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on the terminal."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            with self.server.lock:
                self._check_signature()
                status, headers, data = self._handle(body)
        except _Refused as refused:
            text = f"<?xml version='1.0'?><Error><Code>{refused.code}</Code><Message>{refused.code}.</Message></Error>"
            status, headers = refused.status, {"x-ms-error-code": refused.code, "Content-Type": "application/xml"}
            data = text.encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data)), "x-ms-request-id": "1"} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _handle(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        _, container, name = [*unquote(url.path).lstrip("/").split("/", 2), "", ""][:3]
        if query.get("restype") == "container" and self.command == "PUT":
            self.server.containers.setdefault(container, {})
            return 201, {}, b""
        if query.get("restype") == "container" and self.command == "DELETE":
            self.server.containers.pop(container, None)
            return 202, {}, b""
        if container not in self.server.containers:
            raise _Refused(404, "ContainerNotFound")
        blobs = self.server.containers[container]
        if query.get("restype") == "container" and "comp" not in query:
            return 200, {}, b""
        if query.get("comp") == "list":
            return 200, {"Content-Type": "application/xml"}, _list(blobs, query)
        return getattr(self, f"_{self.command.lower()}")(blobs, name, query, body)

    def _put(
        self, blobs: dict[str, Blob], name: str, query: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        if self.headers.get("Content-MD5", md5) != md5:
            raise _Refused(400, "Md5Mismatch")
        comp = query.get("comp")
        if comp == "block":
            blobs.setdefault(name, Blob()).waiting[query["blockid"]] = body
            return 201, {"Content-MD5": md5}, b""
        blob = blobs.get(name, Blob())
        if self.headers.get("If-None-Match") == "*" and blob.data is not None:
            raise _Refused(409, "BlobAlreadyExists")
        blocks: dict[str, bytes] = {}
        if comp == "blocklist":
            known = blob.committed | blob.waiting
            wanted = [str(item.text) for item in ET.fromstring(body)]
            if missing := [each for each in wanted if each not in known]:
                raise _Refused(400, "InvalidBlockList" if missing else "")
            blocks = {each: known[each] for each in wanted}
            body = b"".join(blocks.values())
        kept = {key.lower(): value for key, value in self.headers.items()}
        kept = {key: value for key, value in kept.items() if key in KEPT or key.startswith("x-ms-meta-")}
        if comp is None:
            kept["x-ms-blob-content-md5"] = md5
        blobs[name] = Blob(body, kept, blocks)
        return 201, {**_times(), **({} if comp else {"Content-MD5": md5})}, b""

    def _get(
        self, blobs: dict[str, Blob], name: str, query: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        blob = blobs.get(name)
        if blob is not None and query.get("comp") == "blocklist":
            return 200, {"Content-Type": "application/xml"}, _list_blocks(blob)
        if blob is None or blob.data is None:
            raise _Refused(404, "BlobNotFound")
        headers = _times() | {key: value for key, value in blob.headers.items() if key.startswith("x-ms-meta-")}
        headers |= {"Content-Type": blob.headers.get("x-ms-blob-content-type", ""), "x-ms-blob-type": "BlockBlob"}
        if md5 := blob.headers.get("x-ms-blob-content-md5"):
            headers["Content-MD5"] = md5
        if self.command == "HEAD":
            return 200, headers | {"Content-Length": str(len(blob.data))}, b""
        span = self.headers.get("x-ms-range") or self.headers.get("Range")
        if not span:
            return 200, headers, blob.data
        first, _, last = span.removeprefix("bytes=").partition("-")
        if int(first) >= len(blob.data):
            raise _Refused(416, "InvalidRange")
        data = blob.data[int(first) : int(last) + 1 if last else None]
        headers["Content-Range"] = f"bytes {first}-{int(first) + len(data) - 1}/{len(blob.data)}"
        return 206, headers, data

    _head = _get

    def _delete(
        self, blobs: dict[str, Blob], name: str, query: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if name not in blobs or blobs[name].data is None:
            raise _Refused(404, "BlobNotFound")
        del blobs[name]
        return 202, {}, b""

    def _check_signature(self) -> None:
        if not self.path.startswith(f"/{ACCOUNT}/"):
            raise _Refused(404, "ResourceNotFound")
        headers = {name.lower(): value for name, value in self.headers.items()}
        if headers.get("content-length") == "0":
            del headers["content-length"]
        ours = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers) if name.startswith("x-ms-"))
        url = urlsplit(self.path)
        values = {name.lower(): ",".join(found) for name, found in parse_qs(url.query).items()}
        query = "".join(f"\n{name}:{values[name]}" for name in sorted(values))
        lines = [self.command, *(headers.get(name, "") for name in SIGNED)]
        text = "\n".join(lines) + f"\n{ours}/{ACCOUNT}{url.path}{query}"
        right = base64.b64encode(hmac.new(self.server.key, text.encode(), "sha256").digest()).decode()
        if headers.get("authorization") != f"SharedKey {ACCOUNT}:{right}":
            raise _Refused(403, "AuthenticationFailed")


def _times() -> dict[str, str]:
    return {"Last-Modified": formatdate(usegmt=True), "ETag": '"1"'}


def _list(blobs: Mapping[str, Blob], query: Mapping[str, str]) -> bytes:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
    is_all = "uncommittedblobs" in query.get("include", "")
    folders, items = set(), ""
    for name, blob in sorted(blobs.items()):
        if not name.startswith(prefix) or (blob.data is None and not is_all):
            continue
        rest = name[len(prefix) :]
        if delimiter and delimiter in rest:
            folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            continue
        properties = f"<Content-Length>{len(blob.data or b'')}</Content-Length><Etag>1</Etag>"
        properties += f"<BlobType>BlockBlob</BlobType><Last-Modified>{formatdate(usegmt=True)}</Last-Modified>"
        items += f"<Blob><Name>{escape(name)}</Name><Properties>{properties}</Properties></Blob>"
    items += "".join(f"<BlobPrefix><Name>{escape(folder)}</Name></BlobPrefix>" for folder in sorted(folders))
    return f"<?xml version='1.0'?><EnumerationResults><Blobs>{items}</Blobs><NextMarker/></EnumerationResults>".encode()


def _list_blocks(blob: Blob) -> bytes:
    def told(blocks: Mapping[str, bytes]) -> str:
        each: Any = (f"<Block><Name>{key}</Name><Size>{len(data)}</Size></Block>" for key, data in blocks.items())
        return "".join(each)

    committed, waiting = told(blob.committed), told(blob.waiting)
    text = f"<CommittedBlocks>{committed}</CommittedBlocks><UncommittedBlocks>{waiting}</UncommittedBlocks>"
    return f"<?xml version='1.0'?><BlockList>{text}</BlockList>".encode()
