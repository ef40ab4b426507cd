"""Lists too long for memory: what a dataset holds, in order, and what is known of each file of it."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from flowtuner.engine.data.files import FoundFile
from flowtuner.engine.data.memo import STAMP
from flowtuner.engine.data.sample import Quarantined

CHUNK = 5000


class Spool:
    """The files of one dataset, sorted by path; they wait in a temporary file of SQLite's."""

    def __init__(self, listed: Iterable[FoundFile | Quarantined]) -> None:
        self.faults: list[Quarantined] = []
        self._count = 0
        self._db = sqlite3.connect("", check_same_thread=False)
        weakref.finalize(self, self._db.close)
        self._db.execute("CREATE TABLE found (path BLOB, stamp BLOB, captions TEXT)")
        files = (row for item in listed if (row := self._row(item)))
        while chunk := list(itertools.islice(files, CHUNK)):
            self._db.executemany("INSERT INTO found VALUES (?, ?, ?)", chunk)
            self._count += len(chunk)
        self._db.commit()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[FoundFile]:
        for path, stamp, captions in self._db.execute("SELECT path, stamp, captions FROM found ORDER BY path"):
            own = None if captions is None else tuple(json.loads(captions))
            yield FoundFile(os.fsdecode(path), STAMP.unpack(stamp), own)

    def _row(self, item: FoundFile | Quarantined) -> tuple[bytes, bytes, str | None] | None:
        if isinstance(item, Quarantined):
            self.faults.append(item)
            return None
        captions = None if item.captions is None else json.dumps(item.captions)
        return os.fsencode(item.path), STAMP.pack(*item.stamp), captions


class Lookup:
    """Values by path, and by path without its suffix, in a temporary file of SQLite's."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", check_same_thread=False)
        weakref.finalize(self, self._db.close)
        self._db.execute("CREATE TABLE known (path BLOB PRIMARY KEY, stem BLOB, value TEXT) WITHOUT ROWID")

    def put(self, rows: Iterable[tuple[str, Any]]) -> None:
        """Adds values; a path that is there already takes the new one."""
        packed = ((os.fsencode(path), _stem(path), json.dumps(value)) for path, value in rows)
        while chunk := list(itertools.islice(packed, CHUNK)):
            self._db.executemany("INSERT OR REPLACE INTO known VALUES (?, ?, ?)", chunk)
        self._db.execute("CREATE INDEX IF NOT EXISTS by_stem ON known (stem)")
        self._db.commit()

    def get(self, path: str) -> Any | None:
        """The value of exactly this path."""
        row = self._db.execute("SELECT value FROM known WHERE path = ?", (os.fsencode(path),)).fetchone()
        return json.loads(row[0]) if row else None

    def find(self, path: str) -> tuple[str, Any] | None:
        """The first path that differs in its suffix at most, with its value."""
        query = "SELECT path, value FROM known WHERE stem = ? ORDER BY path LIMIT 1"
        row = self._db.execute(query, (_stem(path),)).fetchone()
        return (os.fsdecode(row[0]), json.loads(row[1])) if row else None


def _stem(path: str) -> bytes:
    folder, name = os.path.split(path)
    return os.fsencode(os.path.join(folder, os.path.splitext(name)[0]))
