"""The files below one folder of a Dropbox: they travel in upload sessions and get their names all at once."""

from __future__ import annotations

import contextlib
import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from dropbox import exceptions, files

from blocks.parts.dropbox_calls import Calls
from blocks.parts.dropbox_errors import RAISED, DamagedReplyError, tags_of
from blocks.parts.dropbox_hash import Hashes, hash_file
from blocks.parts.dropbox_ledger import Ledger
from blocks.parts.dropbox_session import BATCH_FILES, Arrived, Upload, send_large, send_small
from flowtuner.durable import FileRecord
from flowtuner.errors import DestinationDown, PublishError
from flowtuner.publishing.destination import Progress

FINISH_AT_ONCE = 1000
DELETE_AT_ONCE = 1000
DELETE_POLLS = 120
READ_BYTES = 1 << 20
ABSENT = "not_found"


class DropboxStore:
    """A folder of one account; nothing becomes visible before `settle`."""

    def __init__(self, calls: Calls, root: str, owner: str, chunk_bytes: int, unit: str = "") -> None:
        self.calls = calls
        self._root = root
        self._owner = owner
        self._chunk_bytes = chunk_bytes
        self._unit = unit
        self._listing: dict[str, files.FileMetadata] | None = None
        self._revs: dict[str, str] = {}
        self._taken: dict[str, str] = {}
        self._batch: list[Upload] = []
        self._arrived: list[Arrived] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # Sessions stay: the next attempt, even in another process, goes on with them.
        self.calls.client.close()

    def path(self, key: str) -> str:
        """The path in the account for a key below the base path."""
        return f"{self._root}/{key}".rstrip("/")

    def read(self, key: str) -> bytes | None:
        """The bytes of a small file, None if there is none."""
        try:
            return self.calls.patiently(lambda: self._download(key))
        except exceptions.ApiError as error:
            if tags_of(error)[-1:] == [ABSENT]:
                return None
            raise

    def write(self, key: str, data: bytes, *, is_new: bool = False) -> None:
        """Writes a small file; not over what somebody else has written since it was read or found missing."""
        rev = self._revs.get(key)
        mode = files.WriteMode.update(rev) if rev else files.WriteMode.overwrite
        try:
            told = self.calls(
                "files_upload", data, self.path(key), mode=files.WriteMode.add if is_new else mode, mute=True
            )
        except exceptions.ApiError as error:
            if tags_of(error)[1:] != ["conflict", "file"]:
                raise
            raise PublishError(
                f"{self.path(key)} was written by somebody else meanwhile: two runs publish to the same place. Give "
                "them different names of output_dir, or different base_path."
            ) from error
        if told.content_hash != Hashes.of([data]).content_hash:
            raise DestinationDown(f"{self.path(key)} reads back with other bytes than were written.")
        self._revs[key] = told.rev

    def sizes(self, prefix: str, span: tuple[str, str] | None = None) -> Mapping[str, int]:
        """The sizes of all files below a prefix, by their keys, whatever their case there."""
        found = self._list(prefix)
        if prefix == self._unit:
            self._listing = found
        depth = self._root.count("/") + 1
        return _Sizes({"/".join(entry.path_display.split("/")[depth:]): entry.size for entry in found.values()})

    def children(self, prefix: str) -> Iterable[str]:
        """The names of the folders directly below a prefix."""
        entries = self._pages(prefix, recursive=False)
        return [entry.name for entry in entries if isinstance(entry, files.FolderMetadata)]

    def reserve(self, bytes: int) -> None:
        """Raises when the account has no room for that much; nothing where it may not be asked."""
        free = self.free_bytes()
        if free is not None and bytes > free:
            raise PublishError(
                f"{self._owner}: the account is full: {bytes >> 20} MiB are needed, {free >> 20} MiB are free. "
                "Free space there or get more."
            )

    def free_bytes(self) -> int | None:
        """The room that is left in the account, None if the app may not ask."""
        try:
            usage = self.calls("users_get_space_usage")
        except exceptions.AuthError as error:
            if tags_of(error)[:1] == ["missing_scope"]:
                return None
            raise
        allocation = usage.allocation
        if allocation.is_individual():
            return max(0, int(allocation.get_individual().allocated - usage.used))
        if allocation.is_team():
            team = allocation.get_team()
            return max(0, int(team.allocated - team.used))
        return None

    def stage(self, source: Path, key: str, record: FileRecord, on_bytes: Progress) -> None:
        """Sends a file into an upload session, small ones together with others; what is there already is left."""
        path = self.path(key)
        twin = self._taken.setdefault(_fold(path), key)
        if twin != key:
            raise PublishError(f"{twin} and {key} are one file to Dropbox, which ignores case. Rename or exclude one.")
        upload = Upload(source, path, record, on_bytes, Ledger(self._owner, source, path, record))
        upload.report(self.calls, 0)
        if content_hash := self._find_same(upload):
            self._arrived.append(Arrived(upload, content_hash))
            upload.report(self.calls, record.size)
        elif record.size > self._chunk_bytes:
            self._arrived.append(send_large(self.calls, upload, self._chunk_bytes))
        else:
            waiting = sum(each.record.size for each in self._batch)
            if len(self._batch) >= BATCH_FILES or waiting + record.size > self._chunk_bytes:
                self._send_batch()
            self._batch.append(upload)

    def settle(self) -> None:
        """Gives everything staged its name, and reads back from the server what stands there now."""
        self._send_batch()
        unnamed = [each for each in self._arrived if each.session_id]
        for start in range(0, len(unnamed), FINISH_AT_ONCE):
            self._finish(unnamed[start : start + FINISH_AT_ONCE])
        there = self._list(self._unit)
        arrived, self._arrived = self._arrived, []
        for each in arrived:
            each.upload.ledger.forget()
        for each in arrived:
            found = there.get(_fold(each.upload.path))
            if found is None:
                raise DestinationDown(f"{each.upload.path} is not there although it was sent.")
            if found.content_hash != each.content_hash:
                raise DestinationDown(f"{each.upload.path} reads back with other bytes than were sent.")

    def delete(self, *keys: str) -> None:
        """Removes files that may be missing."""
        if len(keys) == 1:
            with _absent_is_fine():
                self.calls("files_delete_v2", self.path(keys[0]))
            return
        for start in range(0, len(keys), DELETE_AT_ONCE):
            self.calls.patiently(lambda at=start: self._delete_many(keys[at : at + DELETE_AT_ONCE]))  # type: ignore[misc]

    def drop_unfinished(self, prefix: str, older_than_s: float = 0) -> None:
        """Removes a folder that nothing is left in; unfinished sessions are invisible, and the service drops them."""
        if not older_than_s and not self._list(prefix):
            with _absent_is_fine():
                self.calls("files_delete_v2", self.path(prefix))

    def chunks(self, key: str, offset: int) -> Iterator[bytes]:
        """The bytes of a file from an offset to its end; a line that breaks is taken up where it broke."""
        failures = 0
        while True:
            try:
                for block in self._stream(key, offset):
                    offset, failures = offset + len(block), 0
                    yield block
                return
            except RAISED as error:
                if tags_of(error)[-1:] == [ABSENT]:
                    raise PublishError(
                        f"{self.path(key)} is missing. Use another checkpoint, or publish this one again."
                    ) from error
                self.calls.wait_after(error, failures)
                failures += 1

    def has_content(self, key: str, record: FileRecord) -> bool:
        """Whether a file has the recorded bytes, all of them read."""
        digest = hashlib.sha256()
        for block in self.chunks(key, 0):
            digest.update(block)
        return digest.hexdigest() == record.sha256

    def _find_same(self, upload: Upload) -> str | None:
        # An earlier attempt may have brought it there and died before the manifest.
        if self._listing is None:
            self._listing = self._list(self._unit)
        there = self._listing.get(_fold(upload.path))
        if there is None or there.size != upload.record.size:
            return None
        content_hash = hash_file(upload.source, upload.record)
        return content_hash if content_hash == there.content_hash else None

    def _send_batch(self) -> None:
        if self._batch:
            self._arrived += send_small(self.calls, self._batch)
            self._batch = []

    def _finish(self, batch: list[Arrived]) -> None:
        """Commits a batch; what the server has lost meanwhile, or committed unheard, shows in the listing."""
        entries = [each.to_finish() for each in batch]

        def finish() -> None:
            if not entries:
                return
            result = self.calls.once("files_upload_session_finish_batch_v2", list(entries))
            failed = [
                (entry, exceptions.ApiError("", answer.get_failure(), None, None))
                for entry, answer in zip(entries, result.entries, strict=True)
                if answer.is_failure()
            ]
            entries[:] = [entry for entry, error in failed if tags_of(error)[0] != "lookup_failed"]
            for _, error in failed:
                if tags_of(error)[0] != "lookup_failed":
                    raise error

        self.calls.patiently(finish)

    def _delete_many(self, keys: tuple[str, ...]) -> None:
        launch = self.calls.once("files_delete_batch", [files.DeleteArg(self.path(key)) for key in keys])
        status = launch
        for _ in range(DELETE_POLLS):
            if status.is_complete():
                break
            if status is not launch and status.is_failed():
                raise exceptions.ApiError("", status.get_failed(), None, None)
            self.calls.wait()
            status = self.calls("files_delete_batch_check", launch.get_async_job_id())
        else:
            raise DestinationDown(f"Dropbox is still deleting {self.path(keys[0])} and others.")
        for entry in status.get_complete().entries:
            if entry.is_failure() and tags_of(entry.get_failure())[-1:] != [ABSENT]:
                raise exceptions.ApiError("", entry.get_failure(), None, None)

    def _download(self, key: str) -> bytes:
        told, reply = self.calls.once("files_download", self.path(key))
        with contextlib.closing(reply):
            data: bytes = reply.content
        if told.content_hash != Hashes.of([data]).content_hash:
            raise DamagedReplyError(f"{key} was damaged on its way")
        self._revs[key] = told.rev
        return data

    def _stream(self, key: str, offset: int) -> Iterator[bytes]:
        span = {"Range": f"bytes={offset}-"} if offset else None
        _, reply = self.calls.once("files_download", self.path(key), extra_headers=span)
        with contextlib.closing(reply):
            yield from reply.iter_content(READ_BYTES)

    def _list(self, prefix: str) -> dict[str, files.FileMetadata]:
        found = [entry for entry in self._pages(prefix, recursive=True) if isinstance(entry, files.FileMetadata)]
        return {_fold(entry.path_display): entry for entry in found if entry.path_display}

    def _pages(self, prefix: str, *, recursive: bool) -> list[Any]:
        return self.calls.patiently(lambda: list(self._each_page(prefix, recursive)))

    def _each_page(self, prefix: str, recursive: bool) -> Iterator[Any]:
        try:
            page = self.calls.once("files_list_folder", self.path(prefix), recursive=recursive)
        except exceptions.ApiError as error:
            if tags_of(error)[-1:] == [ABSENT]:
                return
            raise
        yield from page.entries
        while page.has_more:
            page = self.calls.once("files_list_folder_continue", page.cursor)
            yield from page.entries


class _Sizes(Mapping[str, int]):
    """Sizes by key; a key finds its file in whatever case and composition the service tells it."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = dict(sizes)
        self._folded = {_fold(key): size for key, size in sizes.items()}

    def __getitem__(self, key: str) -> int:
        return self._folded[_fold(key)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)


def _fold(path: str) -> str:
    # So the service compares names: case does not count, nor how an accent is put together.
    return unicodedata.normalize("NFC", path).lower()


@contextlib.contextmanager
def _absent_is_fine() -> Iterator[None]:
    try:
        yield
    except exceptions.ApiError as error:
        if tags_of(error)[-1:] != [ABSENT]:
            raise
