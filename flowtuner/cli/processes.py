"""Finds the processes that one of ours started, by what they run; where there is no /proc it finds none."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

ENGINE = b"flowtuner.engine.worker"
RUN = b"prefect.engine"


def find_children(parent: int, mark: bytes) -> list[int]:
    """The children of a process whose command line contains a mark."""
    lists = Path(f"/proc/{parent}/task").glob("*/children")
    children = [int(pid) for path in lists for pid in _read(path).split()]
    # Arguments are separated by zero bytes.
    return [pid for pid in children if mark in _read(Path(f"/proc/{pid}/cmdline"))]


def find_processes(mark: bytes, api_url: str) -> list[int]:
    """The processes on this machine whose command line contains a mark and that talk to one Prefect server."""
    wanted = f"PREFECT_API_URL={api_url}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if mark in _read(folder / "cmdline") and wanted in _read(folder / "environ").split(b"\0"):
            found.append(int(folder.name))
    return found


def end_engines(parent: int) -> list[int]:
    """Kills the engines that a process started, with all their children, and says which."""
    ended = []
    for pid in find_children(parent, ENGINE):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
            ended.append(pid)
    return ended


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile
        return b""
