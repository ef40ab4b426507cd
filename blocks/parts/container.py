"""The blobs of one container: small files in one request each, large ones in blocks that survive an interruption."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobPrefix, ContainerClient, ContentSettings, StandardBlobTier

from blocks.parts.azure_errors import code_of
from blocks.parts.azure_listing import list_sizes
from blocks.parts.blob_blocks import BlockId, BlockUpload
from blocks.parts.digests import Digests, refuse_changed
from blocks.parts.express import Express, Lane
from blocks.parts.labels import content_type_of
from blocks.parts.puts import REQUESTS_AT_ONCE, Put, put_all
from flowtuner.durable import FileRecord
from flowtuner.errors import DestinationDown, PublishError
from flowtuner.publishing.destination import Progress
from flowtuner.publishing.threads import run_together

SINGLE_LIMIT_BYTES = 4 << 20  # what goes in one request is held in memory
CHUNK_BYTES = 4 << 20
NOT_FOUND = ("BlobNotFound", "404")
UNCOMMITTED = "uncommittedblobs"


@dataclass(frozen=True)
class Terms:
    """How blobs are written to a container."""

    root: str = ""
    block_bytes: int = 16 << 20
    access_tier: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    crc32: Mapping[str, int] = field(default_factory=dict)

    def key(self, key: str) -> str:
        """The name in the container for a key below the base path."""
        return f"{self.root}/{key}".lstrip("/")


class ContainerStore:
    """A container below one prefix; nothing becomes visible before `settle`."""

    def __init__(self, client: ContainerClient, terms: Terms, given_up: threading.Event, lane: Lane) -> None:
        self.client: Any = client
        self.terms = terms
        self._given_up = given_up
        self._express = Express(lane)
        self._puts: list[Put] = []
        self._uploads: list[BlockUpload] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # Blocks that were sent stay: the next attempt, even in another process, goes on with them.
        self._given_up.set()
        self._express.close()
        self.client.close()

    def make_container(self) -> None:
        """Makes the container where there is none; one that may not be looked at is taken to be there."""
        from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

        try:
            self.client.get_container_properties()
        except ResourceNotFoundError as missing:
            try:
                self.client.create_container()
            except ResourceExistsError:
                return  # another run was faster
            except HttpResponseError:
                raise missing from None
        except HttpResponseError:
            return  # a signature for writing alone: the write shows what it is worth

    def blob(self, key: str) -> Any:
        """The SDK's client for one blob."""
        return self.client.get_blob_client(self.terms.key(key))

    def read(self, key: str) -> bytes | None:
        """The bytes of a small blob, None if there is none."""
        try:
            data: bytes = self.blob(key).download_blob().readall()
        except ResourceNotFoundError as error:
            if code_of(error) in NOT_FOUND:
                return None
            raise
        return data

    def write(self, key: str, data: bytes, *, is_new: bool = False) -> None:
        """Writes a small blob; a new one only if nobody else has written it meanwhile."""
        try:
            self.blob(key).upload_blob(
                data, length=len(data), overwrite=not is_new, validate_content="md5",
                content_settings=self.settings_of(key, Digests.of(data).md5), metadata=dict(self.terms.metadata),
            )  # fmt: skip
        except ResourceExistsError as error:
            if self.read(key) != data:  # the reply to our own writing may have been lost
                raise PublishError(
                    f"{self.terms.key(key)} was written by somebody else meanwhile: two runs publish to the same "
                    "place. Give them different names of output_dir, or different base_path."
                ) from error

    def sizes(self, prefix: str, span: tuple[str, str] | None = None) -> Mapping[str, int]:
        """The sizes of all blobs below a prefix, by their keys."""
        skip = len(self.terms.key("x")) - 1
        start = self.terms.key(prefix) + "/"
        found = list_sizes(self._express, start)
        if found is None:
            found = {blob.name: blob.size for blob in self.client.list_blobs(name_starts_with=start)}
        return {name[skip:]: size for name, size in found.items()}

    def children(self, prefix: str) -> Iterable[str]:
        """The names directly below a prefix."""
        found = self.client.walk_blobs(name_starts_with=self.terms.key(prefix) + "/", delimiter="/")
        return [item.name.rstrip("/").rpartition("/")[2] for item in found if isinstance(item, BlobPrefix)]

    def reserve(self, bytes: int) -> None:
        """Nothing: Azure has no way to ask for room."""

    def stage(self, source: Path, key: str, record: FileRecord, on_bytes: Progress) -> None:
        """Sends a large file in blocks, which stay invisible; a small one is only taken up."""
        if record.size <= SINGLE_LIMIT_BYTES:
            self._puts.append(Put(source, key, record, on_bytes))
            return
        upload = BlockUpload(self, source, key, record)
        upload.send(on_bytes)
        self._uploads.append(upload)

    def settle(self) -> None:
        """Makes everything staged visible and proves each blob."""
        for upload in self._uploads:
            upload.commit()
        self._uploads.clear()
        puts, self._puts = self._puts, []
        put_all(puts, self._put)

    def delete(self, *keys: str) -> None:
        """Removes blobs that may be missing, with their snapshots."""

        def delete_one(key: str, stop: threading.Event) -> None:
            try:
                self.blob(key).delete_blob(delete_snapshots="include")
            except ResourceNotFoundError as error:
                if code_of(error) not in NOT_FOUND:
                    raise

        run_together([lambda stop, key=key: delete_one(key, stop) for key in keys], REQUESTS_AT_ONCE)  # type: ignore[misc]

    def has_content(self, key: str, record: FileRecord) -> bool:
        """Whether a blob has the recorded bytes, all of them read."""
        digest = hashlib.sha256()
        for chunk in self.chunks(key, 0):
            digest.update(chunk)
        return digest.hexdigest() == record.sha256

    def chunks(self, key: str, offset: int) -> Iterator[bytes]:
        """The bytes of a blob from an offset to its end."""
        try:
            chunks: Iterator[bytes] = self.blob(key).download_blob(offset=offset or None).chunks()
        except ResourceNotFoundError as error:
            if code_of(error) not in NOT_FOUND:
                raise
            raise PublishError(f"{key} is missing. Use another checkpoint, or publish this one again.") from error
        yield from chunks

    def drop_unfinished(self, prefix: str, older_than_s: float = 0) -> None:
        """Gives up the blocks below a prefix that nobody has made a blob of."""
        start = self.terms.key(prefix) + "/"
        try:
            listed = list_sizes(self._express, start, UNCOMMITTED)
            if listed is None:
                found = self.client.list_blobs(name_starts_with=start, include=[UNCOMMITTED])
                listed = {blob.name: blob.size for blob in found}
        except HttpResponseError as error:
            if error.status_code in (400, 403, 501):  # not everybody may see them, and Azure removes them after a week
                return
            raise
        # What was never committed is listed as empty.
        for name, size in listed.items():
            if not size:
                self._drop_blocks(name, time.time() - older_than_s)

    def settings_of(self, key: str, md5: str = "") -> ContentSettings:
        """What every blob is served with."""
        return ContentSettings(content_type=content_type_of(key), content_md5=bytearray.fromhex(md5) if md5 else None)

    @property
    def tier(self) -> StandardBlobTier | None:
        """The access tier of everything but manifests, which are read often."""
        return StandardBlobTier(self.terms.access_tier) if self.terms.access_tier else None

    def _put(self, put: Put, stop: threading.Event) -> None:
        data = put.source.read_bytes()
        digests = Digests.of(data)
        refuse_changed(put.source, digests, put.record)
        md5 = self._put_express(put, data, digests) or self._put_slowly(put, data, digests)
        if md5 != digests.md5 and not self.has_content(put.key, put.record):
            raise DestinationDown(f"{self.terms.key(put.key)} reads back with other bytes than were written.")

    def _put_express(self, put: Put, data: bytes, digests: Digests) -> str | None:
        headers = {f"x-ms-meta-{name}": value for name, value in self.terms.metadata.items()}
        headers |= {"x-ms-blob-content-type": content_type_of(put.key), "content-md5": digests.content_md5}
        if self.terms.access_tier:
            headers["x-ms-access-tier"] = self.terms.access_tier
        reply = self._express.put(self.terms.key(put.key), headers, data, put.record.sha256)
        return base64.b64decode(reply.get("content-md5", "")).hex() if reply is not None else None

    def _put_slowly(self, put: Put, data: bytes, digests: Digests) -> str:
        reply = self.blob(put.key).upload_blob(
            data, length=len(data), overwrite=True, validate_content="md5",
            content_settings=self.settings_of(put.key, digests.md5), metadata=dict(self.terms.metadata),
            standard_blob_tier=self.tier,
        )  # fmt: skip
        return bytes(reply.get("content_md5") or b"").hex()

    def _drop_blocks(self, name: str, before: float) -> None:
        client = self.client.get_blob_client(name)
        try:
            committed, waiting = client.get_block_list("all")
            ids = [BlockId.parse(block.id) for block in waiting]
            if committed or not waiting or any(found is None or found.begun > before for found in ids):
                return
            # Blocks alone cannot be deleted: they become an empty blob, on the condition that there is none yet.
            client.commit_block_list([], match_condition=MatchConditions.IfMissing)
            client.delete_blob()
        except (ResourceNotFoundError, ResourceExistsError):
            return  # somebody else was faster
