"""Files on their way into upload sessions: large ones from the server's offset on, small ones many at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dropbox import exceptions, files

from blocks.parts.digests import refuse_changed
from blocks.parts.dropbox_calls import Calls
from blocks.parts.dropbox_errors import RAISED, DamagedReplyError, is_passing, tags_of
from blocks.parts.dropbox_hash import Hashes, hash_file
from blocks.parts.dropbox_ledger import Ledger
from flowtuner.durable import FileRecord
from flowtuner.errors import DestinationDown
from flowtuner.publishing.destination import Progress

APPEND = "files_upload_session_append_v2"
BATCH_FILES = 100  # their names travel in one header
SESSIONS_AT_MOST = 3


@dataclass(frozen=True)
class Upload:
    """A file that is to be brought to a path."""

    source: Path
    path: str
    record: FileRecord
    on_bytes: Progress
    ledger: Ledger

    def report(self, calls: Calls, done: int) -> None:
        """Says how far it is, now and whenever a call takes long; who does not want it any more answers by raising."""
        calls.tell = partial(self.on_bytes, done, self.record.size)
        calls.tell()


@dataclass(frozen=True)
class Arrived:
    """A file whose bytes are all in a closed session, or at their place already where there is none."""

    upload: Upload
    content_hash: str
    session_id: str = ""

    def to_finish(self) -> files.UploadSessionFinishArg:
        """The request that gives the bytes their name."""
        commit = files.CommitInfo(self.upload.path, mode=files.WriteMode.overwrite, mute=True)
        cursor = files.UploadSessionCursor(self.session_id, self.upload.record.size)
        return files.UploadSessionFinishArg(cursor, commit)


def send_large(calls: Calls, upload: Upload, chunk_bytes: int) -> Arrived:
    """Sends what the server does not have yet of a large file; meanwhile the whole file is hashed."""
    with ThreadPoolExecutor(1) as hasher:
        hashed = hasher.submit(hash_file, upload.source, upload.record)
        for _ in range(SESSIONS_AT_MOST):
            session = _Session.open(calls, upload, chunk_bytes)
            if session.send():
                return Arrived(upload, hashed.result(), session.session_id)
            upload.ledger.forget()
    raise DestinationDown(f"{upload.path}: Dropbox loses its upload sessions.")


def send_small(calls: Calls, uploads: list[Upload]) -> list[Arrived]:
    """Sends many small files in two requests."""
    pieces, hashes = [], []
    for upload in uploads:
        pieces.append(upload.source.read_bytes())
        hashes.append(Hashes.of([pieces[-1]]))
        refuse_changed(upload.source, hashes[-1], upload.record)
    body = b"".join(pieces)
    # After a lost answer nobody knows what these sessions hold: the whole batch goes into fresh ones.
    names = calls.patiently(partial(_append_all, calls, [len(piece) for piece in pieces], body))
    for upload in uploads:
        upload.report(calls, upload.record.size)
    return [
        Arrived(upload, known.content_hash, name) for upload, known, name in zip(uploads, hashes, names, strict=True)
    ]


def _append_all(calls: Calls, lengths: list[int], body: bytes) -> list[str]:
    names: list[str] = calls.once("files_upload_session_start_batch", len(lengths)).session_ids
    entries = [
        files.UploadSessionAppendBatchArgEntry(files.UploadSessionCursor(name, 0), length, close=True)
        for name, length in zip(names, lengths, strict=True)
    ]
    result = calls.once("files_upload_session_append_batch", body, entries)
    for entry in result.entries:
        if not entry.is_success():
            raise DamagedReplyError(f"a small file was not taken: {'/'.join(tags_of(entry))}")
    return names


@dataclass
class _Session:
    """One upload session and how far it is; the server's word on that counts, not ours."""

    calls: Calls
    upload: Upload
    chunk_bytes: int
    session_id: str
    offset: int = 0
    is_closed: bool = False
    is_lost: bool = False

    @classmethod
    def open(cls, calls: Calls, upload: Upload, chunk_bytes: int) -> _Session:
        found = upload.ledger.find()
        if found is not None:
            session = cls(calls, upload, chunk_bytes, found)
            session.ask_offset()
            if not session.is_lost:
                return session
        session_id = calls("files_upload_session_start", b"").session_id
        upload.ledger.keep(session_id)
        return cls(calls, upload, chunk_bytes, session_id)

    def send(self) -> bool:
        """Sends everything that is missing; False if the server does not know the session any more."""
        failures = 0
        with self.upload.source.open("rb") as file:
            while not self.is_closed and not self.is_lost:
                before = self.offset
                file.seek(before)
                try:
                    self._append(file.read(self.chunk_bytes))
                    self.upload.report(self.calls, self.offset)
                except RAISED as error:
                    failures = failures if self.offset == before else 0
                    self.calls.wait_after(error, failures)
                    failures += 1
                    self.ask_offset()
        return not self.is_lost

    def ask_offset(self) -> None:
        """Learns from the server how much it has: what was sent last may have arrived although nobody heard so."""
        try:
            self.calls(APPEND, b"", files.UploadSessionCursor(self.session_id, 0))
            self.offset = 0
        except exceptions.ApiError as error:
            self._follow(error)

    def _append(self, data: bytes) -> None:
        cursor = files.UploadSessionCursor(self.session_id, self.offset)
        is_last = self.offset + len(data) >= self.upload.record.size
        try:
            self.calls.once(APPEND, data, cursor, close=is_last)
        except exceptions.ApiError as error:
            if is_passing(error):
                raise
            self._follow(error)
            return
        self.offset += len(data)
        self.is_closed = is_last

    def _follow(self, error: exceptions.ApiError) -> None:
        tags = tags_of(error)
        if tags == ["incorrect_offset"]:
            self.offset = int(error.error.get_incorrect_offset().correct_offset)
            # More than the file has: these are not its bytes.
            self.is_lost = self.offset > self.upload.record.size
        elif tags == ["closed"]:
            self.offset, self.is_closed = self.upload.record.size, True
        elif tags == ["not_found"]:
            self.is_lost = True
        else:
            raise error
