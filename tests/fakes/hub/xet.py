"""The content store that clients of the xet protocol upload to: containers of chunks, and shards that say what of them
makes which file."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes.hub.state import HubState, RefusalError

HEADER, ENTRY = 48, 48
END = b"\xff" * 32
HAS_VERIFICATION, HAS_METADATA = 0x80000000, 0x40000000
PLACE = "/_cas"
ACCESS_TOKEN = "xet"  # what a client is given for its Hub token, and shows here


@dataclass(frozen=True)
class Segment:
    """A range of chunks in one container."""

    container: str
    first: int
    end: int


class Xet:
    """The routes; a shard is taken only if the files it describes have the SHA-256 that it announces.

    Clients must have said HF_XET_XORB_COMPRESSION_POLICY=none: nothing is decompressed here.
    """

    def __init__(self, hub: HubState) -> None:
        self._hub = hub

    def routes(self) -> list[Route]:
        """All of them; what else a client asks for is missing, and it goes on without."""
        return [
            Route(f"{PLACE}/v1/xorbs/default/{{hash}}", self._take_container, methods=["POST"]),
            Route(f"{PLACE}/v1/shards", self._take_shard, methods=["POST"]),
        ]

    async def _take_container(self, request: Request) -> Response:
        _check(request)
        self._container(request.path_params["hash"]).write_bytes(await request.body())
        return JSONResponse({"was_inserted": True})

    async def _take_shard(self, request: Request) -> Response:
        _check(request)
        await run_in_threadpool(self._assemble, await request.body())
        return JSONResponse({"result": 1})

    def _assemble(self, shard: bytes) -> None:
        for sha256, segments in _files(shard):
            data = b"".join(_read(self._container(segment.container), segment) for segment in segments)
            if hashlib.sha256(data).hexdigest() != sha256:
                for segment in segments:
                    self._container(segment.container).unlink(missing_ok=True)
                raise RefusalError(400, "The content does not have the announced SHA-256")
            self._hub.blobs.put(data)

    def _container(self, name: str) -> Path:
        return self._hub.blobs.path(f".xorb-{name}")


def _check(request: Request) -> None:
    if request.headers.get("authorization") != f"Bearer {ACCESS_TOKEN}":
        raise RefusalError(401, "Unauthorized")


def _files(shard: bytes) -> Iterator[tuple[str, list[Segment]]]:
    place = HEADER
    while shard[place : place + 32] not in (END, b""):
        flags, count = struct.unpack_from("<II", shard, place + 32)
        first = place + ENTRY
        starts = range(first, first + ENTRY * count, ENTRY)
        segments = [
            Segment(_hex(shard[at : at + 32]), *struct.unpack_from("<IIII", shard, at + 32)[2:]) for at in starts
        ]
        place = first + ENTRY * count * (2 if flags & HAS_VERIFICATION else 1)
        if flags & HAS_METADATA:
            yield _hex(shard[place : place + 32]), segments
            place += ENTRY


def _read(path: Path, segment: Segment) -> bytes:
    if not path.is_file():
        raise RefusalError(400, "The shard names a container that is not here")
    container = path.read_bytes()
    place, chunks = 0, []
    for number in range(segment.end):
        size, scheme = int.from_bytes(container[place + 1 : place + 4], "little"), container[place + 4]
        if scheme != 0:
            raise RefusalError(400, "The chunks are compressed, or damaged")
        if number >= segment.first:
            chunks.append(container[place + 8 : place + 8 + size])
        place += 8 + size
    return b"".join(chunks)


def _hex(digest: bytes) -> str:
    # Four little-endian numbers of 64 bits each.
    return "".join(digest[at : at + 8][::-1].hex() for at in range(0, 32, 8))
