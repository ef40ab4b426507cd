"""Finds the pictures below a folder: no hidden files, no loops, nothing that is not a picture."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flowtuner.engine.data.sample import Quarantined

PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
)

Stamp = tuple[int, int, int, int]


@dataclass(frozen=True)
class FoundFile:
    """A picture's path and the stamp that changes with its bytes."""

    path: str
    stamp: Stamp


def stamp_of(status: os.stat_result) -> Stamp:
    """Size, both times and inode: together they change whenever a file's bytes do."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def find_pictures(folder: Path) -> tuple[list[FoundFile], list[Quarantined]]:
    """All pictures below a folder, sorted by path, and those that cannot even be looked at."""
    found: list[FoundFile] = []
    faults: list[Quarantined] = []
    for entry in _walk(str(folder.absolute()), faults):
        if os.path.splitext(entry.name)[1].lower() in PICTURE_SUFFIXES:
            _sort_in(entry, found, faults)
    return sorted(found, key=lambda file: file.path), faults


def _walk(top: str, faults: list[Quarantined]) -> Iterator[os.DirEntry[str]]:
    # A folder is entered once, however many links lead to it; real folders come before linked ones.
    seen: set[tuple[int, int]] = set()
    waiting = [top]
    linked: list[str] = []
    while waiting or linked:
        folder = waiting.pop() if waiting else linked.pop(0)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                listed = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            faults.append(Quarantined(folder, f"the folder cannot be read: {error.strerror}"))
            continue
        for entry in listed:
            if not entry.is_dir():
                yield entry
            elif entry.is_symlink():
                linked.append(entry.path)
            else:
                waiting.append(entry.path)


def _sort_in(entry: os.DirEntry[str], found: list[FoundFile], faults: list[Quarantined]) -> None:
    try:
        status = entry.stat()
    except OSError as error:
        reason = "a link that leads nowhere" if entry.is_symlink() else f"cannot be read: {error.strerror}"
        faults.append(Quarantined(entry.path, reason))
        return
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe would wait for ever.
        faults.append(Quarantined(entry.path, "not a regular file"))
    elif status.st_size == 0:
        faults.append(Quarantined(entry.path, "the file is empty"))
    else:
        found.append(FoundFile(entry.path, stamp_of(status)))
