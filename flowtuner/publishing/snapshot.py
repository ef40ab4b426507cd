"""Frozen checkpoints: hard links that rotation and the next save cannot touch, hashed into a manifest later."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowtuner import durable
from flowtuner.durable import FileRecord
from flowtuner.errors import PublishError
from flowtuner.publishing.manifest import CHECKPOINT_NAME, Kind, Manifest
from flowtuner.publishing.recognition import WITH_CREDENTIALS, read_step, recognise
from flowtuner.publishing.secrets import find_secrets
from flowtuner.publishing.selection import (
    is_by_product,
    list_all_files,
    list_checkpoint_files,
    list_release_files,
)

SPOOL_NAME = ".spool"
CLAIM_NAME = ".spool.lock"
CHECKPOINT_MANIFEST = "checkpoint_manifest.json"
WHOLE = "output_dir"
# Written once and renamed into place; what else lies in an output folder may grow while it is being published.
UNCHANGING = (".safetensors", ".bin", ".pkl", ".png", ".jpg", ".webp")


@dataclass(frozen=True)
class Unit:
    """What is to be published and what its manifest says about it."""

    source: Path
    run: str
    name: str
    kind: Kind
    step: int
    run_id: str
    files: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spool(self) -> Path:
        """Where the unit is held still: in the output folder, so that hard links reach it."""
        output_dir = self.source.parent if self.kind == "checkpoint" else self.source
        return output_dir / SPOOL_NAME


@dataclass(frozen=True)
class Frozen:
    """A unit held still in the spool; taking the links costs milliseconds, so training waits for nothing more."""

    unit: Unit
    folder: Path
    created: str

    def seal(self, before_each: Callable[[], None] = lambda: None) -> Snapshot:
        """Reads every byte back, compares with the checkpoint's own manifest, and makes the one to publish."""
        records: list[FileRecord] = []
        crc32: dict[str, int] = {}
        try:
            for name in self.unit.files:
                before_each()
                sha256, crc32[name] = _digest(self.folder / name)
                records.append(FileRecord(name, (self.folder / name).stat().st_size, sha256))
            secrets = find_secrets(self.folder, self.unit.files)
        except OSError as error:
            raise PublishError(f"{self.unit.name} cannot be read: {error.strerror}: {error.filename}") from error
        damage = _find_damage(self.folder, records)
        if damage:
            raise PublishError(f"{self.unit.name} is damaged on this disk, so it is not published: {'; '.join(damage)}")
        if secrets:
            raise PublishError(
                f"{self.unit.name} is not published: {'; '.join(secrets)}. Remove it there, renew the credential, then "
                "publish again."
            )
        unit, files = self.unit, tuple(records)
        about = dict(unit.metadata)
        manifest = Manifest(
            unit.run, unit.name, unit.kind, unit.step, unit.run_id, self.created, files, about, crc32=crc32
        )
        return Snapshot(self.folder, unit.name, manifest)


@dataclass(frozen=True)
class Snapshot:
    """A frozen unit and the manifest that describes its bytes."""

    folder: Path
    name: str
    manifest: Manifest


def checkpoint_unit(folder: Path, run_id: str, step: int, metadata: Mapping[str, Any]) -> Unit:
    """A checkpoint folder as a unit."""
    files = _some(list_checkpoint_files(folder), folder)
    return Unit(folder, folder.parent.name, folder.name, "checkpoint", step, run_id, files, metadata)


def release_unit(
    output_dir: Path, run_id: str, step: int, metadata: Mapping[str, Any], release: Path | None = None
) -> Unit:
    """The release in an output folder as a unit."""
    files = _some(list_release_files(output_dir, release), output_dir)
    return Unit(output_dir, output_dir.name, "release", "release", step, run_id, files, metadata)


def folder_unit(output_dir: Path, run_id: str, step: int, metadata: Mapping[str, Any]) -> Unit:
    """A whole output folder as a unit, without its checkpoints."""
    files = _some(list_all_files(output_dir), output_dir)
    return Unit(output_dir, output_dir.name, WHOLE, "folder", step, run_id, files, metadata)


def model_unit(folder: Path, *, everything: bool = False) -> Unit:
    """A model or a checkpoint that another program has saved: its model files, or all that may leave the machine."""
    found = recognise(folder)
    files: Sequence[str] = found.files if found else ()
    if everything:
        files = [name for name in list_checkpoint_files(folder) if name not in WITH_CREDENTIALS]
    about = {"shape": found.shape} if found else {}
    step = read_step(folder)
    if CHECKPOINT_NAME.fullmatch(folder.name):
        step = step or int(folder.name.rpartition("-")[2])
        return Unit(folder, folder.parent.name, folder.name, "checkpoint", step, "", _some(files, folder), about)
    return Unit(folder, folder.name, "release", "release", step, "", _some(files, folder), about)


def freeze(unit: Unit) -> Frozen:
    """Links a unit's files into the spool, or copies them where the file system has no links."""
    folder = unit.spool / unit.name
    shutil.rmtree(folder, ignore_errors=True)
    try:
        for name in unit.files:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _hold(unit, name, target)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise PublishError(
            f"{unit.name} could not be frozen for publishing: {error.strerror}: {error.filename}. "
            f"Free space in {unit.spool.parent} or check its permissions."
        ) from error
    held = replace(unit, files=tuple(name for name in unit.files if (folder / name).is_file()))
    return Frozen(held, folder, _saved_at(folder, held.files))


def thaw(frozen: Frozen) -> None:
    """Gives the links back, and with them the space of checkpoints that were rotated meanwhile."""
    shutil.rmtree(frozen.folder, ignore_errors=True)


def remove_spool(unit: Unit) -> None:
    """Removes the spool when nothing is in it; only for whoever freezes: a freeze under way needs it."""
    with contextlib.suppress(OSError):  # others still wait in it
        unit.spool.rmdir()


@contextlib.contextmanager
def claimed_spool(output_dir: Path) -> Iterator[None]:
    """Claims a share in an output folder's spool; what a killed run left in it goes if nobody else is at work there."""
    output_dir.mkdir(parents=True, exist_ok=True)
    with (output_dir / CLAIM_NAME).open("a") as claim:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(output_dir / SPOOL_NAME, ignore_errors=True)
        fcntl.flock(claim, fcntl.LOCK_SH)
        yield


def _some(files: Sequence[str], folder: Path) -> tuple[str, ...]:
    if not files:
        raise PublishError(f"{folder} holds nothing to publish. Give a checkpoint folder or a finished output folder.")
    return tuple(files)


def _saved_at(folder: Path, files: Sequence[str]) -> str:
    # Not the time of publishing: what arrives late, after an outage, must not be taken for the newest.
    newest = max((folder / name).stat().st_mtime for name in files)
    return datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds")


def _hold(unit: Unit, name: str, target: Path) -> None:
    if unit.kind != "folder":
        _link(unit.source / name, target)
        return
    with contextlib.suppress(FileNotFoundError):  # gone since it was listed: what comes and goes is not the model
        (_link if name.endswith(UNCHANGING) else _copy)(unit.source / name, target)


def _link(source: Path, target: Path) -> None:
    # The link must be to the bytes: a symbolic link's target may be replaced.
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError:  # another file system, or one without hard links; what is really wrong shows in the copy
        _copy(real, target)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with contextlib.suppress(OSError):  # not every file system keeps times
        shutil.copystat(source, target)


def _digest(path: Path) -> tuple[str, int]:
    sha256, crc32 = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(durable.HASH_BLOCK_BYTES):
            sha256.update(block)
            crc32 = zlib.crc32(block, crc32)
    return sha256.hexdigest(), crc32


def _find_damage(folder: Path, records: Sequence[FileRecord]) -> list[str]:
    path = folder / CHECKPOINT_MANIFEST
    if not path.is_file():
        return []
    try:
        written = {entry["path"]: entry["sha256"] for entry in durable.read_json(path)["files"]}
    except (ValueError, KeyError, TypeError):
        return [f"{CHECKPOINT_MANIFEST} cannot be read"]
    found = {record.path: record.sha256 for record in records}
    missing = [f"{name} is missing" for name in written if name not in found and not is_by_product(name)]
    changed = [f"{name} has other bytes" for name, sha256 in written.items() if found.get(name, sha256) != sha256]
    return missing + changed
