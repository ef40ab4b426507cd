"""Remembers on disk what was computed from a file, for as long as the file stays the same."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from flowtuner.engine.data.files import FoundFile, Stamp

SAVE_INTERVAL_S = 5.0
MOST_PENDING = 5000
LOCK_WAIT_S = 10.0
# A file changed twice within one tick of the clock keeps its stamp: one this young is not remembered.
RACY_NS = 20_000_000
STAMP = struct.Struct("<QqqQ")


class Memo:
    """Values by path, valid while the file's stamp is the one they were computed from; losing it costs time only."""

    def __init__(self, path: Path, version: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._pending: dict[bytes, tuple[bytes, str]] = {}
        self._opened_ns = time.time_ns()
        self._saved_at = clock()
        self._db: sqlite3.Connection | None = None
        with self._unless_broken():
            try:
                self._db = _open(path, version)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                path.unlink(missing_ok=True)
                self._db = _open(path, version)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def recall(self, path: str, stamp: Stamp) -> Any | None:
        """The value computed from exactly this state of the file, or nothing."""
        return self.recall_all([FoundFile(path, stamp)])[0]

    def recall_all(self, files: Sequence[FoundFile]) -> list[Any | None]:
        """As `recall`, for many files at the cost of one visit to the disk."""
        found: list[tuple[bytes, str] | None] = [self._pending.get(os.fsencode(file.path)) for file in files]
        if self._db is not None:
            query = "SELECT stamp, value FROM facts WHERE path = ?"
            with self._unless_broken(), self._db:
                self._db.execute("BEGIN")
                for place, file in enumerate(files):
                    if found[place] is None:
                        found[place] = self._db.execute(query, (os.fsencode(file.path),)).fetchone()
        return [
            json.loads(known[1]) if known and known[0] == STAMP.pack(*file.stamp) else None
            for known, file in zip(found, files, strict=True)
        ]

    def remember(self, path: str, stamp: Stamp, value: Any) -> None:
        """Keeps a value; now and then everything is saved, so that a kill loses seconds of work."""
        if self._opened_ns - stamp[2] < RACY_NS:
            return
        self._pending[os.fsencode(path)] = STAMP.pack(*stamp), json.dumps(value)
        if len(self._pending) >= MOST_PENDING or self._clock() - self._saved_at > SAVE_INTERVAL_S:
            self.save()

    def files_below(self, folder: str) -> Iterator[FoundFile]:
        """The files that are remembered below a folder, in order."""
        self.save()
        last = os.fsencode(folder)
        while rows := self._fetch_below(folder, last):
            for path, stamp in rows:
                yield FoundFile(os.fsdecode(path), STAMP.unpack(stamp))
            last = rows[-1][0]

    def keep_only(self, folder: str, count: int, paths: Iterable[str]) -> None:
        """Forgets files below a folder that are not among these `count` any more."""
        self.save()
        if self._db is None:
            return
        with self._unless_broken():
            low, high = _bounds(folder)
            known = self._db.execute("SELECT count(*) FROM facts WHERE path > ? AND path < ?", (low, high)).fetchone()
            if known[0] <= count:
                return
            with self._db:
                self._db.execute("CREATE TEMP TABLE present (path BLOB PRIMARY KEY) WITHOUT ROWID")
                self._db.executemany("INSERT OR IGNORE INTO present VALUES (?)", ((os.fsencode(p),) for p in paths))
                self._db.execute(
                    "DELETE FROM facts WHERE path > ? AND path < ? AND path NOT IN (SELECT path FROM present)",
                    (low, high),
                )
                self._db.execute("DROP TABLE present")

    def save(self) -> None:
        """Writes what is not written yet."""
        if self._db is not None and self._pending:
            rows = [(path, *known) for path, known in self._pending.items()]
            with self._unless_broken(), self._db:
                self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", rows)
        self._pending.clear()
        self._saved_at = self._clock()

    def close(self) -> None:
        """Writes what is not written yet, and lets the file go."""
        self.save()
        if self._db is not None:
            self._db.close()
            self._db = None

    def _fetch_below(self, folder: str, last: bytes) -> list[tuple[bytes, bytes]]:
        # In portions: a reader that stayed open would keep other processes from writing.
        found: list[tuple[bytes, bytes]] = []
        if self._db is not None:
            with self._unless_broken():
                query = "SELECT path, stamp FROM facts WHERE path > ? AND path < ? ORDER BY path LIMIT 1000"
                found = self._db.execute(query, (last, _bounds(folder)[1])).fetchall()
        return found

    @contextlib.contextmanager
    def _unless_broken(self) -> Iterator[None]:
        # A memo that cannot be used (a damaged file, a full disk, a neighbour that does not let go) is done without.
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            logging.getLogger(__name__).warning("%s is not used: %s", self._path, error)
            if self._db is not None:
                self._db.close()
                self._db = None


def _open(path: Path, version: int) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=LOCK_WAIT_S)
    try:
        if db.execute("PRAGMA user_version").fetchone()[0] != version:
            with db:
                db.execute("DROP TABLE IF EXISTS facts")
                db.execute(
                    "CREATE TABLE facts (path BLOB PRIMARY KEY, stamp BLOB NOT NULL, value TEXT NOT NULL) WITHOUT ROWID"
                )
                db.execute(f"PRAGMA user_version = {int(version)}")
        db.execute("SELECT path, stamp, value FROM facts LIMIT 1").fetchall()
    except sqlite3.Error:
        db.close()
        raise
    return db


def _bounds(folder: str) -> tuple[bytes, bytes]:
    start = os.fsencode(folder)
    return start, start + b"\xff"
