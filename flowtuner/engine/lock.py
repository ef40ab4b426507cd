"""One engine per output folder: the second one waits for the first, then says who holds it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from flowtuner.errors import EngineFault

WAIT_S = 30.0
POLL_S = 0.2
NAME = ".engine.lock"


def wait_until_free(output_dir: Path, wait_s: float = WAIT_S) -> bool:
    """Waits until no engine works in a folder; False if one still does."""
    try:
        file = (output_dir / NAME).open()
    except OSError:
        return True  # there never was one
    deadline = time.monotonic() + wait_s
    with file:
        while not _try(file):
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
    return True


class OutputLock:
    """Held from its creation to the end of the process, however that comes."""

    def __init__(self, output_dir: Path, warn: Callable[[str], None], wait_s: float = WAIT_S) -> None:
        output_dir.mkdir(parents=True, exist_ok=True)
        self._file = (output_dir / NAME).open("a+")
        deadline = time.monotonic() + wait_s
        is_told = False
        while not _try(self._file):
            if time.monotonic() >= deadline:
                holder = self._holder()
                self._file.close()
                raise EngineFault(
                    f"another run (process {holder}) is training into {output_dir}. Wait for it, stop it, "
                    "or choose another output_dir."
                )
            if not is_told:
                warn(f"waiting for process {self._holder()}, which still holds {output_dir}")
                is_told = True
            time.sleep(POLL_S)
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Lets the next engine in."""
        self._file.close()

    def _holder(self) -> str:
        self._file.seek(0)
        return self._file.read().strip() or "unknown"


def _try(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
