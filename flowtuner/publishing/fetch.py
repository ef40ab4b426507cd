"""Reading a unit back: interrupted work goes on inside its files, each is proved, the folder is whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from flowtuner import durable
from flowtuner.durable import FileRecord
from flowtuner.errors import DestinationDown, PublishError
from flowtuner.publishing.destination import Progress
from flowtuner.publishing.manifest import Manifest
from flowtuner.publishing.threads import run_together

FILES_AT_ONCE = 4
INCOMING = ".incoming-"
PARTS = ".parts"

Chunks = Callable[[str, int], Iterator[bytes]]
"""Called with a file's path within the unit and an offset; gives the bytes from there to the end of the file.

It is called from several threads at once; it raises DestinationDown when trying again may help, else PublishError.
"""


def fetch_unit(chunks: Chunks, manifest: Manifest, target: Path, on_progress: Progress) -> None:
    """Brings a unit to a folder, which appears in one rename; what an earlier attempt has brought stays."""
    _refuse_strays(manifest)
    if target.is_dir() and not durable.find_damage(target, manifest.files):
        on_progress(manifest.size, manifest.size)
        return
    # Hidden, so that nothing takes it for a checkpoint and nothing publishes it.
    folder = target.with_name(f"{INCOMING}{target.name}")
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    missing = [record for record in manifest.files if not _is_there(record, folder, target)]
    _reserve(folder, missing)
    done = {record.path: 0 if record in missing else record.size for record in manifest.files}

    def fetch_one(record: FileRecord, stop: threading.Event) -> None:
        for size in _fetch(chunks, record, folder, manifest):
            done[record.path] = size
            if stop.is_set():
                return

    jobs = [partial(fetch_one, record) for record in missing]
    run_together(jobs, FILES_AT_ONCE, lambda: on_progress(sum(done.values()), manifest.size))
    shutil.rmtree(folder / PARTS)
    _remove_strangers(folder, manifest)
    durable.sync_tree(folder)
    durable.replace_folder(folder, target)


def _refuse_strays(manifest: Manifest) -> None:
    # What is read back comes from outside: it must not write anywhere but into its own folder.
    for record in manifest.files:
        path = PurePosixPath(record.path)
        if path.is_absolute() or not path.parts or ".." in path.parts or path.parts[0] == PARTS:
            raise PublishError(f"the manifest of {manifest.name} names {record.path!r}, outside of its own folder.")


def _is_there(record: FileRecord, folder: Path, target: Path) -> bool:
    if not durable.find_damage(folder, [record]):
        return True
    if durable.find_damage(target, [record]):
        return False
    place = folder / record.path
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(target / record.path, place)
    return True


def _reserve(folder: Path, missing: list[FileRecord]) -> None:
    begun = sum(part.stat().st_size for part in (folder / PARTS).iterdir())
    needed, free = sum(record.size for record in missing) - begun, shutil.disk_usage(folder).free
    if needed > free:
        raise PublishError(
            f"{folder.parent} has {free >> 20} MiB free and {needed >> 20} MiB are to come. Free space there."
        )


def _fetch(chunks: Chunks, record: FileRecord, folder: Path, manifest: Manifest) -> Iterator[int]:
    part = folder / PARTS / _part_name(record)
    # The second time from the beginning: what an earlier attempt left may be what is wrong.
    for _ in range(2):
        yield from _append(chunks, record, part)
        if durable.sha256_of(part) == record.sha256:
            place = folder / record.path
            place.parent.mkdir(parents=True, exist_ok=True)
            part.replace(place)
            return
        part.unlink()
    raise PublishError(
        f"{manifest.prefix}/{record.path} has other bytes than its manifest says. Use another checkpoint, or publish "
        "this one again from where it is whole."
    )


def _append(chunks: Chunks, record: FileRecord, part: Path) -> Iterator[int]:
    with part.open("ab") as file:
        done = file.tell()
        while done < record.size:
            before = done
            for block in chunks(record.path, done):
                file.write(block)
                done += len(block)
                yield min(done, record.size)
                if done > record.size:  # not the file that is meant, however much of it there is
                    return
            if done == before:
                raise DestinationDown(f"{record.path} ended after {done} of {record.size} bytes.")
        file.flush()
        os.fsync(file.fileno())


def _part_name(record: FileRecord) -> str:
    # By content, so that bytes of another version are never gone on with.
    return f"{record.sha256[:32]}-{hashlib.sha256(record.path.encode()).hexdigest()[:16]}"


def _remove_strangers(folder: Path, manifest: Manifest) -> None:
    # Files of an attempt at an earlier version of the unit.
    wanted = {record.path for record in manifest.files}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
