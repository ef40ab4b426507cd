"""One large file on its way to a bucket in parts: what an earlier attempt has sent is found again and kept."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from blocks.parts.digests import Slice, digest_stream, header_of, joined_digest
from blocks.parts.s3_errors import code_of, status_of
from flowtuner.durable import FileRecord
from flowtuner.errors import DestinationDown
from flowtuner.publishing.destination import Progress
from flowtuner.publishing.threads import run_together

if TYPE_CHECKING:
    from blocks.parts.bucket import BucketStore

PARTS_AT_ONCE = 4
PARTS_LIMIT = 10_000
CRC32 = "CRC32"
WHOLE = "FULL_OBJECT"


@dataclass(frozen=True)
class Part:
    """A stretch of the file."""

    number: int
    start: int
    size: int


class PartUpload:
    """A file that is sent in parts and becomes an object only when it is completed."""

    def __init__(self, store: BucketStore, source: Path, key: str, record: FileRecord) -> None:
        self._store = store
        self._source = source
        self._key = key
        self._record = record
        self._has_checksums = store.terms.has_checksums
        self._parts = split(record.size, store.terms.part_bytes)
        self._etags: dict[int, str] = {}
        self._place = {"Bucket": store.terms.bucket, "Key": store.terms.key(key)}
        self._upload_id = ""
        self._crc32: dict[int, int] = {}
        self._whole = 0

    def send(self, on_bytes: Progress) -> None:
        """Sends the parts that are not there yet, and looks whether they are those of the sealed file."""
        self._find_or_begin()
        missing = [part for part in self._parts if part.number not in self._etags]
        jobs = [partial(self._send, part) for part in missing]
        run_together(jobs, PARTS_AT_ONCE, lambda: on_bytes(self._sent_bytes(), self._record.size))
        on_bytes(self._record.size, self._record.size)
        parts = ((self._crc32[part.number], part.size) for part in self._parts)
        self._whole = joined_digest(self._source, self._record, parts, self._store.terms.crc32)

    def complete(self) -> None:
        """Makes the object out of its parts, and proves that it is the file."""
        parts = [{"PartNumber": part.number, "ETag": f'"{self._etags[part.number]}"'} for part in self._parts]
        proof: dict[str, Any] = {}
        if self._has_checksums:
            proof = {"ChecksumCRC32": header_of(self._whole), "ChecksumType": WHOLE}
            proof["MpuObjectSize"] = self._record.size
        try:
            self._store.client.complete_multipart_upload(
                **self._place, UploadId=self._upload_id, MultipartUpload={"Parts": parts}, **proof
            )
        except ClientError as error:
            # Completed already, when the reply to the first request was lost; what stands there is looked at anyway.
            if code_of(error) != "NoSuchUpload":
                raise
        if not self._is_proved():
            raise DestinationDown(f"{self._place['Key']} is not there with the bytes that were sent.")

    def _sent_bytes(self) -> int:
        return sum(part.size for part in self._parts if part.number in self._etags)

    def _find_or_begin(self) -> None:
        found = [upload for upload in self._store.unfinished(self._key) if upload["Key"] == self._place["Key"]]
        for upload in found:
            if not self._upload_id and self._is_alike(upload):
                self._etags = self._parts_there(upload)
                self._upload_id = str(upload["UploadId"]) if self._etags else ""
            if upload["UploadId"] != self._upload_id:
                self._store.abort(upload)  # of another version of the file, or with nothing in it
        if not self._upload_id:
            kind = {"ChecksumAlgorithm": CRC32, "ChecksumType": WHOLE} if self._has_checksums else {}
            reply = self._store.client.create_multipart_upload(**self._store.arguments_of(self._key), **kind)
            self._upload_id = reply["UploadId"]

    def _is_alike(self, upload: Mapping[str, Any]) -> bool:
        wanted = CRC32 if self._has_checksums else None
        return bool(upload.get("ChecksumAlgorithm", wanted) == wanted)

    def _parts_there(self, upload: Mapping[str, Any]) -> dict[int, str]:
        pages = self._store.client.get_paginator("list_parts").paginate(**self._place, UploadId=upload["UploadId"])
        try:
            listed = {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}
        except ClientError as error:
            if status_of(error) in (403, 404, 405, 501):  # may not be listed, or is gone already
                return {}
            raise
        return {
            part.number: listed[part.number]["ETag"].strip('"')
            for part in self._parts
            if part.number in listed and self._is_same(part, listed[part.number])
        }

    def _is_same(self, part: Part, listed: Mapping[str, Any]) -> bool:
        if listed["Size"] != part.size:
            return False
        with Slice(self._source, part.start, part.size) as body:
            digests = digest_stream(body.blocks(), has_md5=True, has_sha256=False)
        self._crc32[part.number] = digests.crc32
        if "ChecksumCRC32" in listed:
            return bool(listed["ChecksumCRC32"] == digests.checksum_crc32)
        return bool(listed["ETag"].strip('"') == digests.md5)

    def _send(self, part: Part, stop: threading.Event) -> None:
        with Slice(self._source, part.start, part.size, stop) as body:
            digests = digest_stream(body.blocks(), has_md5=not self._has_checksums, has_sha256=False)
            proof = {"ChecksumCRC32": digests.checksum_crc32}
            if not self._has_checksums:
                proof = {"ContentMD5": digests.content_md5}
            reply = self._store.client.upload_part(
                **self._place, UploadId=self._upload_id, PartNumber=part.number, Body=body, **proof
            )
        self._crc32[part.number] = digests.crc32
        self._etags[part.number] = reply["ETag"].strip('"')

    def _is_proved(self) -> bool:
        client = self._store.client
        mode = {"ChecksumMode": "ENABLED"} if self._has_checksums else {}
        try:
            there = client.head_object(**self._place, **mode)
        except ClientError as error:
            if code_of(error) in ("404", "NoSuchKey", "NotFound"):
                return False
            raise
        if there["ContentLength"] != self._record.size:
            return False
        if "ChecksumCRC32" in there and there.get("ChecksumType", WHOLE) == WHOLE:
            return bool(there["ChecksumCRC32"] == header_of(self._whole))
        # Without checksums each part was sent with its MD5, and the object's name is the MD5 of theirs.
        if not self._has_checksums and there["ETag"].strip('"') == join_etags(
            list(self._etags[p.number] for p in self._parts)
        ):
            return True
        return self._store.has_content(self._key, self._record)


def split(size: int, part_bytes: int) -> list[Part]:
    """A file's parts, larger ones where there would be too many."""
    part_bytes = max(part_bytes, -(-size // PARTS_LIMIT))
    starts = range(0, size, part_bytes)
    return [Part(number, start, min(part_bytes, size - start)) for number, start in enumerate(starts, 1)]


def join_etags(etags: list[str]) -> str:
    """The ETag of an object made of parts with these ETags."""
    try:
        joined = b"".join(bytes.fromhex(etag) for etag in etags)
    except ValueError:  # encrypted with a key of its own: then an ETag is no MD5
        return ""
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(etags)}"
