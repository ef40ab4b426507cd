"""One large file on its way to Azure in blocks: what an earlier attempt has sent is found again and kept."""

from __future__ import annotations

import base64
import re
import threading
import time
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobBlock

from blocks.parts.digests import Slice, digest_stream, joined_digest
from blocks.parts.multipart import Part, split
from flowtuner.durable import FileRecord
from flowtuner.errors import DestinationDown
from flowtuner.publishing.destination import Progress
from flowtuner.publishing.threads import run_together

if TYPE_CHECKING:
    from blocks.parts.container import ContainerStore

BLOCKS_AT_ONCE = 3
HELD_BYTES = 8 << 20  # three of them are in memory at once
_ID = re.compile(r"(\d{6})-([0-9a-f]{8})-([0-9a-f]{16})-(\d{11})")


@dataclass(frozen=True)
class BlockId:
    """A block's name: its place, its bytes and its file's by their digests, and when it was begun (Unix time).

    Azure checks each block against a digest as it arrives, so a list of such names says what the blob consists of.
    """

    number: int
    crc32: int
    file: str
    begun: int

    def __str__(self) -> str:
        return f"{self.number:06d}-{self.crc32:08x}-{self.file}-{self.begun:011d}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Reads a name; None if it is not one of ours."""
        found = _ID.fullmatch(text)
        return cls(int(found[1]), int(found[2], 16), found[3], int(found[4])) if found else None


class BlockUpload:
    """A file that is sent in blocks and becomes a blob only when they are committed."""

    def __init__(self, store: ContainerStore, source: Path, key: str, record: FileRecord) -> None:
        self._store = store
        self._source = source
        self._key = key
        self._record = record
        self._blob = store.blob(key)
        self._blocks = split(record.size, store.terms.block_bytes)
        self._ids: dict[int, BlockId] = {}
        self._begun = int(time.time())

    def send(self, on_bytes: Progress) -> None:
        """Sends the blocks that are not there yet, and looks whether they are those of the sealed file."""
        there = self._find()
        jobs = [partial(self._send, block, there) for block in self._blocks]
        run_together(jobs, BLOCKS_AT_ONCE, lambda: on_bytes(self._sent_bytes(), self._record.size))
        on_bytes(self._record.size, self._record.size)
        parts = ((self._ids[block.number].crc32, block.size) for block in self._blocks)
        joined_digest(self._source, self._record, parts, self._store.terms.crc32)

    def commit(self) -> None:
        """Makes the blob out of its blocks, and reads back which ones it consists of."""
        store = self._store
        self._blob.commit_block_list(
            [BlobBlock(block_id=str(self._ids[block.number])) for block in self._blocks],
            content_settings=store.settings_of(self._key),
            metadata={**store.terms.metadata, "flowtuner_sha256": self._record.sha256},
            standard_blob_tier=store.tier,
        )
        committed, _ = self._blob.get_block_list("committed")
        wanted = [(str(self._ids[block.number]), block.size) for block in self._blocks]
        if [(block.id, block.size) for block in committed] != wanted:
            raise DestinationDown(f"{store.terms.key(self._key)} does not consist of the blocks that were sent.")

    def _sent_bytes(self) -> int:
        return sum(block.size for block in self._blocks if block.number in self._ids)

    def _find(self) -> dict[int, tuple[BlockId, int]]:
        if len(self._blocks) == 1:
            return {}
        try:
            _, waiting = self._blob.get_block_list("uncommitted")
        except ResourceNotFoundError:
            return {}
        found = ((BlockId.parse(block.id), block.size) for block in waiting)
        return {each.number: (each, size) for each, size in found if each and each.file == self._record.sha256[:16]}

    def _send(self, block: Part, there: dict[int, tuple[BlockId, int]], stop: threading.Event) -> None:
        with Slice(self._source, block.start, block.size, stop) as part:
            # Read once and sent at once: read twice, and sent in the small pieces that streams are, it takes longer.
            body = part.read() if block.size <= HELD_BYTES else part
            crc32, proof = _digests(body)
            found, size = there.get(block.number, (None, 0))
            if found and (found.crc32, size) == (crc32, block.size):
                self._ids[block.number] = found
                return
            block_id = BlockId(block.number, crc32, self._record.sha256[:16], self._begun)
            self._blob.stage_block(str(block_id), body, length=block.size, headers=proof)
        self._ids[block.number] = block_id


def _digests(body: bytes | Slice) -> tuple[int, dict[str, str]]:
    """A block's CRC32, and the header with the digest that Azure checks it against."""
    pieces = [body] if isinstance(body, bytes) else body.blocks()
    try:
        from awscrt import checksums
    except ImportError:
        digests = digest_stream(pieces, has_md5=True, has_sha256=False)
        return digests.crc32, {"Content-MD5": digests.content_md5}
    crc32 = crc64 = 0
    for data in pieces:
        crc32 = zlib.crc32(data, crc32)
        crc64 = checksums.crc64nvme(data, crc64)  # Azure's CRC64 and NVMe's are the same
    return crc32, {"x-ms-content-crc64": base64.b64encode(crc64.to_bytes(8, "little")).decode()}
