"""Rebuilds files from the folder that a client of the xet protocol wrote them to, without opening its locked index."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEADER, ENTRY = 48, 48
END = b"\xff" * 32
HAS_VERIFICATION, HAS_METADATA = 0x80000000, 0x40000000


@dataclass(frozen=True)
class Segment:
    """A range of chunks in one container file."""

    container: str
    first: int
    end: int


def rebuild(cas: Path, sha256: str) -> bytes | None:
    """The bytes of a file that some upload left in the folder, if any did.

    Clients must have said HF_XET_XORB_COMPRESSION_POLICY=none: nothing is decompressed here.
    """
    for shard in cas.glob("**/xorbs/shards/*.mdb"):
        for found, segments in _files(shard.read_bytes()):
            if found == sha256:
                data = b"".join(_read(cas, segment) for segment in segments)
                return data if hashlib.sha256(data).hexdigest() == sha256 else None
    return None


def _files(shard: bytes) -> Iterator[tuple[str, list[Segment]]]:
    place = HEADER
    while shard[place : place + 32] != END:
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


def _read(cas: Path, segment: Segment) -> bytes:
    container = next(cas.glob(f"**/xorbs/xorbs/*.{segment.container}")).read_bytes()
    place, chunks = 0, []
    for number in range(segment.end):
        size, scheme = int.from_bytes(container[place + 1 : place + 4], "little"), container[place + 4]
        assert scheme == 0, "the client compressed its chunks"
        if number >= segment.first:
            chunks.append(container[place + 8 : place + 8 + size])
        place += 8 + size
    return b"".join(chunks)


def _hex(digest: bytes) -> str:
    # Four little-endian numbers of 64 bits each.
    return "".join(digest[at : at + 8][::-1].hex() for at in range(0, 32, 8))
