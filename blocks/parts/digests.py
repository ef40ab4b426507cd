"""The digests that storages know files by, taken in one pass over the bytes."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from flowtuner.durable import FileRecord
from flowtuner.errors import PublishError

BLOCK_BYTES = 1 << 20
_CHANGED = "{} has other bytes than when it was frozen. Check the disk, then publish again."
_POLYNOMIAL, _ONE = 0xEDB88320, 1 << 31  # CRC32's, lowest power first


@dataclass(frozen=True)
class Digests:
    """What a sequence of bytes is known by; MD5 only where a storage has nothing better."""

    sha256: str
    crc32: int
    md5: str = ""

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The digests of bytes in memory."""
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return cls(hashlib.sha256(data).hexdigest(), zlib.crc32(data), md5)

    @property
    def content_md5(self) -> str:
        """The MD5 as the header Content-MD5 wants it."""
        return base64.b64encode(bytes.fromhex(self.md5)).decode()

    @property
    def checksum_crc32(self) -> str:
        """The CRC32 as x-amz-checksum-crc32 wants it."""
        return header_of(self.crc32)


def digest_stream(blocks: Iterable[bytes], *, has_md5: bool = False, has_sha256: bool = True) -> Digests:
    """The digests of bytes that arrive in blocks."""
    sha256, md5, crc32 = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    for block in blocks:
        if has_sha256:
            sha256.update(block)
        crc32 = zlib.crc32(block, crc32)
        if has_md5:
            md5.update(block)
    return Digests(sha256.hexdigest() if has_sha256 else "", crc32, md5.hexdigest() if has_md5 else "")


def digest_file(path: Path, *, has_md5: bool = False) -> Digests:
    """The digests of a whole file."""
    with path.open("rb") as file:
        return digest_stream(iter(lambda: file.read(BLOCK_BYTES), b""), has_md5=has_md5)


class Proved(Protocol):
    """Whatever digests say, the manifest's own must be among them."""

    @property
    def sha256(self) -> str:
        """The SHA-256 in hexadecimal digits."""


def refuse_changed(source: Path, digests: Proved, record: FileRecord) -> None:
    """Raises when a file is not what its manifest says."""
    if digests.sha256 != record.sha256:
        raise PublishError(_CHANGED.format(source))


def joined_digest(source: Path, record: FileRecord, parts: Iterable[tuple[int, int]], sealed: Mapping[str, int]) -> int:
    """The CRC32 of parts in their order, given by CRC32 and size; raises when they are not the file that was sealed."""
    joined = 0
    for part, size in parts:
        joined = _times(_power(size * 8), joined) ^ part
    if record.path not in sealed:  # by another process
        digests = digest_file(source)
        refuse_changed(source, digests, record)
        sealed = {record.path: digests.crc32}
    if joined != sealed[record.path]:
        raise PublishError(_CHANGED.format(source))
    return joined


def header_of(crc32: int) -> str:
    """A CRC32 as x-amz-checksum-crc32 wants it."""
    return base64.b64encode(crc32.to_bytes(4, "big")).decode()


class StoppedReading(BaseException):
    """Ends a request whose body nobody wants to send any more; no exception, or the SDK would try again."""


class Slice(io.RawIOBase):
    """A stretch of a file that reads like a file of its own, so that no part is ever held in memory."""

    def __init__(self, path: Path, start: int, size: int, stop: threading.Event | None = None) -> None:
        super().__init__()
        self._stop = stop
        self._file = path.open("rb")
        self._start, self._size, self._position = start, size, 0
        self._file.seek(start)

    def blocks(self) -> Iterator[bytes]:
        """All of it, from the beginning, and back to the beginning."""
        self.seek(0)
        yield from iter(lambda: self.read(BLOCK_BYTES), b"")
        self.seek(0)

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes, all that are left by default."""
        if self._stop is not None and self._stop.is_set():
            raise StoppedReading
        left = self._size - self._position
        wanted = left if size is None or size < 0 else min(size, left)
        data = self._file.read(wanted)
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer with the next bytes; the AWS runtime reads in this way where it is installed."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves within the stretch."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = min(max(base + offset, 0), self._size)
        self._file.seek(self._start + self._position)
        return self._position

    def tell(self) -> int:
        """Where reading goes on."""
        return self._position

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()


def _times(left: int, right: int) -> int:
    """The product of two polynomials, modulo CRC32's own."""
    product = 0
    while left:
        if left & _ONE:
            product ^= right
        left = (left << 1) & 0xFFFFFFFF
        right = right >> 1 ^ (_POLYNOMIAL if right & 1 else 0)
    return product


def _power(bits: int) -> int:
    """What a CRC32 is multiplied by when that many bits follow: x to their number."""
    result, square = _ONE, _ONE >> 1
    while bits:
        if bits & 1:
            result = _times(square, result)
        square, bits = _times(square, square), bits >> 1
    return result
