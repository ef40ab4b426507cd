"""Remembers on disk what was computed from a file, for as long as the file stays the same."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowtuner import durable
from flowtuner.engine.data.files import Stamp

SAVE_INTERVAL_S = 5.0
# A file changed twice within one tick of the clock keeps its stamp: one this young is not remembered.
RACY_NS = 20_000_000


class Memo:
    """Values by path, valid while the file's stamp is the one they were computed from; losing it costs time only."""

    def __init__(self, path: Path, version: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._version = version
        self._clock = clock
        self._values: dict[str, list[Any]] = self._load()
        self._is_changed = False
        self._opened_ns = time.time_ns()
        self._saved_at = clock()
        self._save_took_s = 0.0

    def recall(self, path: str, stamp: Stamp) -> Any | None:
        """The value computed from exactly this state of the file, or nothing."""
        known = self._values.get(path)
        return known[1] if known and tuple(known[0]) == stamp else None

    def remember(self, path: str, stamp: Stamp, value: Any) -> None:
        """Keeps a value; now and then everything is saved, so that a kill loses seconds of work."""
        if self._opened_ns - stamp[2] < RACY_NS:
            return
        self._values[path] = [stamp, value]
        self._is_changed = True
        # The file is rewritten whole: the larger it is, the rarer.
        if self._clock() - self._saved_at > max(SAVE_INTERVAL_S, 20 * self._save_took_s):
            self.save()

    def keep_only(self, folder: str, paths: set[str]) -> None:
        """Forgets files below a folder that are not there any more."""
        gone = [path for path in self._values if path.startswith(folder) and path not in paths]
        for path in gone:
            del self._values[path]
        self._is_changed = self._is_changed or bool(gone)

    def save(self) -> None:
        """Writes the memo if it changed."""
        if not self._is_changed:
            return
        started = self._clock()
        content = {"version": self._version, "files": self._values}
        durable.write_text(self._path, json.dumps(content, separators=(",", ":")))
        self._is_changed = False
        self._saved_at = self._clock()
        self._save_took_s = self._saved_at - started

    def _load(self) -> dict[str, list[Any]]:
        try:
            content = durable.read_json(self._path)
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(content, dict) or content.get("version") != self._version:
            return {}
        files = content.get("files")
        if not isinstance(files, dict):
            return {}
        return {path: value for path, value in files.items() if _is_whole(value)}


def _is_whole(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], list) and len(value[0]) == 4
