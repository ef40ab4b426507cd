"""The digests of a file that goes to Dropbox: ours and the service's own, in one pass over the bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dropbox.content_hash import DropboxContentHasher

from blocks.parts.digests import BLOCK_BYTES, refuse_changed
from flowtuner.durable import FileRecord


@dataclass(frozen=True)
class Hashes:
    """What the same bytes are called here and there."""

    sha256: str
    content_hash: str

    @classmethod
    def of(cls, blocks: Iterable[bytes]) -> Self:
        """The digests of bytes that come in blocks."""
        ours, theirs = hashlib.sha256(), DropboxContentHasher()
        for block in blocks:
            ours.update(block)
            theirs.update(block)
        return cls(ours.hexdigest(), theirs.hexdigest())


def hash_file(path: Path, record: FileRecord) -> str:
    """Dropbox's digest of a file; raises when the file is not what its manifest says."""
    with path.open("rb") as file:
        hashes = Hashes.of(iter(lambda: file.read(BLOCK_BYTES), b""))
    refuse_changed(path, hashes, record)
    return hashes.content_hash
