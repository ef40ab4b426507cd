"""The objects of one bucket: small files in one request each, large ones in parts that survive an interruption."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from botocore.exceptions import ClientError

from blocks.parts.digests import Digests, Slice, digest_file, digest_stream, refuse_changed
from blocks.parts.express import LIMIT_BYTES, Express, Lane
from blocks.parts.labels import content_type_of
from blocks.parts.multipart import PartUpload
from blocks.parts.puts import REQUESTS_AT_ONCE, Put, put_all
from blocks.parts.s3_errors import code_of, status_of
from flowtuner.durable import FileRecord
from flowtuner.errors import DestinationDown, PublishError
from flowtuner.publishing.destination import Progress
from flowtuner.publishing.threads import run_together

if TYPE_CHECKING:
    from botocore.client import BaseClient

SINGLE_LIMIT_BYTES = 5 << 30
CHUNK_BYTES = 1 << 20
NOT_FOUND = ("NoSuchKey", "NotFound", "404")
HEADERS = MappingProxyType(
    {
        "ContentType": "content-type",
        "ContentMD5": "content-md5",
        "ChecksumSHA256": "x-amz-checksum-sha256",
        "StorageClass": "x-amz-storage-class",
        "ServerSideEncryption": "x-amz-server-side-encryption",
        "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    }
)


@dataclass(frozen=True)
class Terms:
    """How objects are written to a bucket."""

    bucket: str
    root: str = ""
    part_bytes: int = 64 << 20
    is_single_part: bool = False
    has_checksums: bool = True
    arguments: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    crc32: Mapping[str, int] = field(default_factory=dict)

    def key(self, key: str) -> str:
        """The key in the bucket for one below the base path."""
        return f"{self.root}/{key}".lstrip("/")


class BucketStore:
    """A bucket below one prefix; nothing becomes visible before `settle`."""

    def __init__(self, client: BaseClient, terms: Terms, open_lane: Callable[[], Lane | None] = lambda: None) -> None:
        self.client: Any = client  # its methods are made at run time
        self.terms = terms
        self._open_lane = open_lane
        self._express: Express | None = None
        self._puts: list[Put] = []
        self._uploads: list[PartUpload] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # Parts that were sent stay: the next attempt, even in another process, goes on with them.
        if self._express:
            self._express.close()
        self.client.close()

    def read(self, key: str) -> bytes | None:
        """The bytes of an object, None if there is none."""
        try:
            reply = self.client.get_object(Bucket=self.terms.bucket, Key=self.terms.key(key))
        except ClientError as error:
            if code_of(error) in NOT_FOUND:
                return None
            raise
        data: bytes = reply["Body"].read()
        return data

    def write(self, key: str, data: bytes, *, is_new: bool = False) -> None:
        """Writes a small object; a new one only if nobody else has written it meanwhile, where the storage can tell."""
        arguments = self.arguments_of(key) | {"Body": data}
        if not self.terms.has_checksums:
            arguments["ContentMD5"] = Digests.of(data).content_md5
        # Storages that refuse the newer checksum headers do not know conditional writes either.
        if not is_new or not self.terms.has_checksums:
            self.client.put_object(**arguments)
            return
        try:
            self.client.put_object(**arguments, IfNoneMatch="*")
        except ClientError as error:
            if status_of(error) == 501:
                self.client.put_object(**arguments)
            elif status_of(error) not in (409, 412):
                raise
            elif self.read(key) != data:  # the reply to our own writing may have been lost
                raise PublishError(
                    f"{self.terms.key(key)} was written by somebody else meanwhile: two runs publish to the same "
                    "place. Give them different names of output_dir, or different base_path."
                ) from error

    def sizes(self, prefix: str, span: tuple[str, str] | None = None) -> Mapping[str, int]:
        """The sizes of all objects below a prefix, by their keys."""
        skip = len(self.terms.key("x")) - 1
        found: dict[str, int] = {}
        # A bucket lists its names in order. What is one letter shorter than the first name comes before it.
        first = {"StartAfter": self.terms.key(span[0])[:-1]} if span else {}
        for page in self._pages(prefix, **first):
            found |= {item["Key"][skip:]: item["Size"] for item in page.get("Contents", ())}
            if span and max(found, default="") >= span[1]:
                break
        return found

    def children(self, prefix: str) -> Iterable[str]:
        """The names directly below a prefix."""
        found = (part for page in self._pages(prefix, Delimiter="/") for part in page.get("CommonPrefixes", ()))
        return [part["Prefix"].rstrip("/").rpartition("/")[2] for part in found]

    def reserve(self, bytes: int) -> None:
        """Nothing: S3 has no way to ask for room."""

    def stage(self, source: Path, key: str, record: FileRecord, on_bytes: Progress) -> None:
        """Sends a large file in parts, which stay invisible; a small one is only taken up."""
        is_single = self.terms.is_single_part or record.size <= self.terms.part_bytes
        if is_single and record.size > SINGLE_LIMIT_BYTES:
            raise PublishError(f"{key} is too large for one request. Leave out force_single_part.")
        if is_single:
            self._puts.append(Put(source, key, record, on_bytes))
            return
        upload = PartUpload(self, source, key, record)
        upload.send(on_bytes)
        self._uploads.append(upload)

    def settle(self) -> None:
        """Makes everything staged visible and proves each object."""
        for upload in self._uploads:
            upload.complete()
        self._uploads.clear()
        puts, self._puts = self._puts, []
        lane = self._open_lane() if puts else None
        self._express = Express(lane) if lane else None
        put_all(puts, self._put)

    def delete(self, *keys: str) -> None:
        """Removes objects that may be missing."""

        def delete_one(key: str, stop: threading.Event) -> None:
            # One by one: the request for many at once needs checksums that not every storage takes.
            self.client.delete_object(Bucket=self.terms.bucket, Key=self.terms.key(key))

        run_together([partial(delete_one, key) for key in keys], REQUESTS_AT_ONCE)

    def has_content(self, key: str, record: FileRecord) -> bool:
        """Whether an object has the recorded bytes, all of them read."""
        reply = self.client.get_object(Bucket=self.terms.bucket, Key=self.terms.key(key))
        return digest_stream(reply["Body"].iter_chunks(CHUNK_BYTES)).sha256 == record.sha256

    def chunks(self, key: str, offset: int) -> Iterator[bytes]:
        """The bytes of an object from an offset to its end."""
        span = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            reply = self.client.get_object(Bucket=self.terms.bucket, Key=self.terms.key(key), **span)
        except ClientError as error:
            if code_of(error) not in NOT_FOUND:
                raise
            raise PublishError(f"{key} is missing. Use another checkpoint, or publish this one again.") from error
        if offset and "ContentRange" not in reply:  # a storage that gives everything, whatever it is asked for
            reply["Body"].read(offset)
        yield from reply["Body"].iter_chunks(CHUNK_BYTES)

    def unfinished(self, prefix: str) -> list[dict[str, Any]]:
        """The uploads in parts below a prefix that nobody has completed, newest first; none where that is not told."""
        pages = self.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.terms.bucket, Prefix=self.terms.key(prefix)
        )
        try:
            found = [upload for page in pages for upload in page.get("Uploads", ())]
        except ClientError as error:
            if status_of(error) in (403, 405, 501):  # not everybody may list them; they only save work
                return []
            raise
        return sorted(found, key=lambda upload: upload["Initiated"], reverse=True)

    def abort(self, upload: Mapping[str, Any]) -> None:
        """Gives an unfinished upload up, and its parts with it."""
        try:
            self.client.abort_multipart_upload(Bucket=self.terms.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        except ClientError as error:
            if code_of(error) != "NoSuchUpload":
                raise

    def drop_unfinished(self, prefix: str, older_than_s: float = 0) -> None:
        """Gives up what uploads below a prefix left behind that never came to their end."""
        now = datetime.now(UTC)
        for upload in self.unfinished(f"{prefix}/"):
            if (now - upload["Initiated"]).total_seconds() >= older_than_s:
                self.abort(upload)

    def arguments_of(self, key: str) -> dict[str, Any]:
        """What every object is created with."""
        place = {"Bucket": self.terms.bucket, "Key": self.terms.key(key)}
        return {
            **place,
            "ContentType": content_type_of(key),
            "Metadata": dict(self.terms.metadata),
            **self.terms.arguments,
        }

    def _put(self, put: Put, stop: threading.Event) -> None:
        digests = digest_file(put.source, has_md5=not self.terms.has_checksums)
        refuse_changed(put.source, digests, put.record)
        expected = base64.b64encode(bytes.fromhex(put.record.sha256)).decode()
        proof = {"ChecksumSHA256": expected} if self.terms.has_checksums else {"ContentMD5": digests.content_md5}
        arguments = self.arguments_of(put.key) | proof
        sha256, etag = self._put_express(put, arguments) or self._put_slowly(put, arguments, stop)
        is_proved = expected == sha256 or unquoted(etag) == digests.md5
        if not is_proved and not self.has_content(put.key, put.record):
            raise DestinationDown(f"{self.terms.key(put.key)} reads back with other bytes than were written.")

    def _put_express(self, put: Put, arguments: Mapping[str, Any]) -> tuple[str | None, str | None] | None:
        if self._express is None or put.record.size > LIMIT_BYTES:
            return None
        headers = {HEADERS[name]: value for name, value in arguments.items() if name in HEADERS}
        headers |= {f"x-amz-meta-{name}": value for name, value in self.terms.metadata.items()}
        reply = self._express.put(arguments["Key"], headers, put.source.read_bytes(), put.record.sha256)
        return (reply.get("x-amz-checksum-sha256"), reply.get("etag")) if reply is not None else None

    def _put_slowly(self, put: Put, arguments: Mapping[str, Any], stop: threading.Event) -> tuple[Any, Any]:
        with Slice(put.source, 0, put.record.size, stop) as body:
            reply = self.client.put_object(**arguments, Body=body)
        return reply.get("ChecksumSHA256"), reply.get("ETag")

    def _pages(self, prefix: str, **arguments: str) -> Iterator[dict[str, Any]]:
        pages: Iterable[dict[str, Any]] = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.terms.bucket, Prefix=self.terms.key(prefix) + "/", **arguments
        )
        try:
            yield from pages
        except ValueError as error:  # a number or a date that arrived damaged
            raise DestinationDown(f"the bucket {self.terms.bucket} answered with a broken listing: {error}") from error


def unquoted(etag: str | None) -> str:
    """An ETag without its quotes."""
    return (etag or "").strip('"')
