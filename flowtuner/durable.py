"""Files that are whole or not there: atomic writes, atomic folders, hashes and manifests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HASH_BLOCK_BYTES = 1 << 20
OLD_SUFFIX = "-old-tmp"


@dataclass(frozen=True)
class FileRecord:
    """One file of a manifest: POSIX path relative to the folder, size and SHA-256."""

    path: str
    size: int
    sha256: str


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def record_files(folder: Path, skip: Sequence[str] = ()) -> list[FileRecord]:
    """Records every regular file below a folder, sorted by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    relative = [(path, path.relative_to(folder).as_posix()) for path in paths]
    return [FileRecord(name, path.stat().st_size, sha256_of(path)) for path, name in relative if name not in skip]


def find_damage(folder: Path, records: Sequence[FileRecord], *, hashes: bool = True) -> list[str]:
    """Says, in sentences, which recorded files are missing, of another size or of other bytes."""
    damage = []
    for record in records:
        path = folder / record.path
        if not path.is_file():
            damage.append(f"{record.path} is missing")
        elif path.stat().st_size != record.size:
            damage.append(f"{record.path} has {path.stat().st_size} bytes instead of {record.size}")
        elif hashes and sha256_of(path) != record.sha256:
            damage.append(f"{record.path} does not have the recorded SHA-256")
    return damage


def write_text(path: Path, text: str) -> None:
    """Writes a text file so that a reader sees the old one or the new one, never half."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically, readable for people (dataclasses are written as objects)."""
    write_text(path, json.dumps(value, indent=2, default=_plain) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file to a neighbour, flushes it to the disk and renames it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # there only if something went wrong
    sync_folder(path.parent)


@contextlib.contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yields a temporary neighbour of `target` to write; on success it is flushed and renamed, on failure removed."""
    part = target.with_name(f"{target.name}-tmp")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)  # there only if something went wrong
    sync_folder(target.parent)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yields a temporary neighbour of `target`; on success it is flushed and renamed, on failure removed."""
    part = target.with_name(f"{target.name}-tmp")
    restore_replaced(_old_name(target))
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        sync_tree(part)
        replace_folder(part, target)
    finally:  # finds something to do only if something went wrong
        shutil.rmtree(part, ignore_errors=True)


def replace_folder(part: Path, target: Path) -> None:
    """Renames a whole, flushed folder into the place of another one, or of none."""
    try:
        _swap_in(part, target)
    finally:  # finds something to do only if something went wrong
        restore_replaced(_old_name(target))
    sync_folder(target.parent)


def restore_replaced(old: Path) -> None:
    """Brings a folder back that a kill caught between making way for its successor and the successor's rename."""
    target = old.with_name(old.name.removesuffix(OLD_SUFFIX))
    if old.is_dir() and not target.exists():
        old.rename(target)


def sync_tree(folder: Path) -> None:
    """Flushes every file and folder below `folder` to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Flushes a folder's own entries, so that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap_in(part: Path, target: Path) -> None:
    old = _old_name(target)
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _old_name(target: Path) -> Path:
    return target.with_name(target.name + OLD_SUFFIX)


def _plain(value: Any) -> Any:
    if isinstance(value, FileRecord):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
