"""The upload sessions of a run's large files, remembered on disk so that another process goes on with them."""

from __future__ import annotations

import contextlib
import hashlib
import time
from pathlib import Path

from flowtuner import durable
from flowtuner.durable import FileRecord
from flowtuner.publishing.snapshot import SPOOL_NAME

LIFETIME_S = 7 * 86400  # the service forgets sessions after that
PREFIX = "dropbox-"


class Ledger:
    """One small file per session in the spool: the next process looks there."""

    def __init__(self, owner: str, source: Path, path: str, record: FileRecord) -> None:
        name = hashlib.sha256(repr((owner, path, record.sha256, record.size)).encode()).hexdigest()[:24]
        spool = next((folder for folder in source.parents if folder.name == SPOOL_NAME), source.parent)
        self._file = spool / f"{PREFIX}{name}.json"

    def find(self) -> str | None:
        """The session that an earlier attempt has begun for these bytes."""
        try:
            kept = durable.read_json(self._file)
            is_alive = time.time() - float(kept["started"]) < LIFETIME_S
            return str(kept["session_id"]) if is_alive else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, session_id: str) -> None:
        """Remembers a session, and forgets those that the service has forgotten."""
        for file in self._file.parent.glob(f"{PREFIX}*.json"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - file.stat().st_mtime > LIFETIME_S:
                    file.unlink(missing_ok=True)
        durable.write_json(self._file, {"session_id": session_id, "started": time.time()})

    def forget(self) -> None:
        """Removes the note, when the file has arrived or its session is lost."""
        self._file.unlink(missing_ok=True)
