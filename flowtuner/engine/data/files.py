"""Finds the pictures below a folder: no hidden files, no loops, nothing that is not a picture."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
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
    captions: tuple[str, ...] | None = None
    """The captions that came with it, where the data set itself holds them."""


def stamp_of(status: os.stat_result) -> Stamp:
    """Size, both times and inode: together they change whenever a file's bytes do."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def find_pictures(folder: Path) -> Iterator[FoundFile | Quarantined]:
    """All pictures below a folder, in no order, and what cannot even be looked at."""
    return find_files(folder, PICTURE_SUFFIXES)


def find_files(folder: Path, suffixes: Collection[str]) -> Iterator[FoundFile | Quarantined]:
    """All files below a folder with one of these suffixes, one folder after another."""
    for entry in _walk(str(folder.absolute())):
        if isinstance(entry, Quarantined):
            yield entry
        elif os.path.splitext(entry.name)[1].lower() in suffixes:
            yield _look_at(entry)


def _walk(top: str) -> Iterator[os.DirEntry[str] | Quarantined]:
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
            inner: list[os.DirEntry[str]] = []
            with os.scandir(folder) as entries:
                # Only folders are kept for later: a folder may hold a million files.
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        inner.append(entry)
                    else:
                        yield entry
        except OSError as error:
            yield Quarantined(folder, f"the folder cannot be read: {error.strerror}")
            continue
        for entry in sorted(inner, key=lambda one: one.name):
            (linked if entry.is_symlink() else waiting).append(entry.path)


def _look_at(entry: os.DirEntry[str]) -> FoundFile | Quarantined:
    try:
        status = entry.stat()
    except OSError as error:
        reason = "a link that leads nowhere" if entry.is_symlink() else f"cannot be read: {error.strerror}"
        return Quarantined(entry.path, reason)
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe would wait for ever.
        return Quarantined(entry.path, "not a regular file")
    if status.st_size == 0:
        return Quarantined(entry.path, "the file is empty")
    return FoundFile(entry.path, stamp_of(status))
