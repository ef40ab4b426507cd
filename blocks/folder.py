"""Publishing to a folder: a mounted share or another disk, the built-in destination and the pattern for the others."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Self
from urllib.parse import quote
from uuid import uuid4

from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from flowtuner import durable
from flowtuner.durable import FileRecord
from flowtuner.errors import ConfigError, DestinationDown, Fault, PublishError
from flowtuner.publishing.destination import Progress, PublishResult
from flowtuner.publishing.entries import check_keys, faults_of
from flowtuner.publishing.manifest import Manifest
from flowtuner.publishing.snapshot import Snapshot
from flowtuner.publishing.transfer import find_remote_damage, remove_surplus, send

BLOCK_BYTES = 4 << 20
INCOMING = ".incoming"

# A share that hangs or a mount that is gone may come back; anything else needs a person.
DOWN = {
    errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
    errno.ENOTCONN, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EAGAIN, errno.EBUSY, errno.ENODEV,
    errno.ENXIO, errno.ENOENT, errno.EREMOTEIO,
}  # fmt: skip
REMEDIES = {
    errno.ENOSPC: "Free space there or choose another path.",
    errno.EDQUOT: "The quota is used up: free space there or ask for more.",
    errno.EROFS: "It is mounted read-only: remount it writable or choose another path.",
    errno.EACCES: "Give this user write permission there.",
    errno.EPERM: "Give this user write permission there.",
    errno.ENOTDIR: "A file stands where a folder is needed: move it away.",
    errno.EISDIR: "A folder stands where a file is needed: move it away.",
    errno.EEXIST: "A file stands where a folder is needed: move it away.",
    errno.EFBIG: "The file system does not hold files of this size: choose another one.",
    errno.ENAMETOOLONG: "The name is too long for this file system: shorten base_path or output_dir.",
}


class FolderDestination(Block):
    """A folder that keeps checkpoints and releases, each proved by its manifest."""

    _block_type_name = "Flowtuner Folder"
    _block_type_slug = "flowtuner-folder"
    _description = "Publishes checkpoints and releases to a folder, such as a mounted share."

    provider: ClassVar[str] = "folder"
    aliases: ClassVar[tuple[str, ...]] = ("directory", "local")

    path: Path = Field(
        description="The folder, such as the mount point of a share; made if only its last part is missing."
    )
    base_path: str = Field("", description="Subfolder below path that holds this project's runs.")
    name: str = Field("", description="What reports call this destination; by default its provider and path.")
    public_base_url: str | None = Field(None, description="URL under which the folder is served, for the links.")
    required: bool = Field(True, description="Whether a run fails when this destination does not hold its results.")
    include: list[str] = Field(default_factory=list, description="Only files that match one of these patterns.")
    exclude: list[str] = Field(default_factory=list, description="No file that matches one of these patterns.")

    _device: int | None = PrivateAttr(None)

    @field_validator("path")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return Path(os.path.abspath(value.expanduser()))

    @field_validator("base_path")
    @classmethod
    def _stay_inside(cls, value: str) -> str:
        parts = PurePosixPath(value.strip(" /")).parts
        if ".." in parts:
            raise ValueError("'..' would leave the destination's path")
        return "/".join(parts)

    @model_validator(mode="after")
    def _name_it(self) -> Self:
        self.name = self.name or f"{self.provider}:{self.path}"
        return self

    @classmethod
    def check_entry(cls, entry: Mapping[str, Any], origin: str) -> list[Fault]:
        """Finds mistakes in an entry of `publishing_config` without asking anybody."""
        settings, faults = check_keys(entry, set(cls.model_fields), origin)
        if faults or "block" in entry:
            return faults
        try:
            cls(**settings)
        except ValidationError as error:
            return faults_of(error, origin)
        return []

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any], origin: str) -> Self:
        """Makes the destination from an entry, or from the stored block it names with the entry's own keys on top."""
        settings, faults = check_keys(entry, set(cls.model_fields), origin)
        if not faults and entry.get("block"):
            settings, faults = cls._stored_settings(str(entry["block"]), origin) | settings, []
        if faults:
            raise ConfigError(faults)
        try:
            return cls(**settings)
        except ValidationError as error:
            raise ConfigError(faults_of(error, origin)) from error

    @classmethod
    def _stored_settings(cls, block: str, origin: str) -> dict[str, Any]:
        try:
            stored = cls.load(block, _sync=True)  # type: ignore[call-arg]
        except ValueError as error:
            fault = Fault(
                "block",
                block,
                origin,
                "no such block is stored",
                suggestion=f"save a {cls._block_type_name} block of this name",
            )
            raise ConfigError([fault]) from error
        settings = {key: getattr(stored, key) for key in cls.model_fields}
        return settings | {"name": block}

    def probe(self, output_dir: Path | None = None) -> None:
        """Proves write access by putting, reading and deleting a small file."""
        if not self.path.exists() and self.path.parent.is_dir():
            with self._translated():
                self.path.mkdir()  # one new folder is meant; a whole missing path is a share that is not mounted
        if not self.path.is_dir():
            raise PublishError(f"{self.path} is not a folder. Create it, mount the share, or correct `path`.")
        if output_dir is not None and (self._root / output_dir.name).resolve() == output_dir.resolve():
            raise PublishError(f"{output_dir} would be published onto itself. Choose another `path` or `base_path`.")
        with self._translated():
            self._device = self.path.stat().st_dev
            store = FolderStore(self._root)
            key, token = f".probe-{uuid4().hex}", uuid4().bytes
            store.write(key, token)
            answer = store.read(key)
            store.delete(key)
        if answer != token:
            raise PublishError(f"{self._root} gave back other bytes than were written. Check the disk or the share.")

    def publish(self, snapshot: Snapshot, on_progress: Progress) -> PublishResult:
        """Copies what is not there yet, reads it back, and writes the manifest last."""
        wanted = snapshot.manifest.select(self.include, self.exclude)
        if not wanted.files:
            raise PublishError(f"include and exclude leave nothing of {snapshot.name} for {self.name}. Widen them.")
        with self._translated(), FolderStore(self._root) as store:
            self._check_mount()
            manifest, sent_files, sent_bytes = send(store, snapshot, wanted, on_progress)
            damage = find_remote_damage(store, manifest, deep=False)
        if damage:
            raise PublishError(f"{self.name} does not hold what was written: {'; '.join(damage[:5])}")
        return PublishResult(
            self.name, self.provider, snapshot.name, manifest.step, self.uri_of(manifest), True,
            len(manifest.files), manifest.size, sent_files, sent_bytes, manifest.sha256, dict(manifest.metadata),
        )  # fmt: skip

    def verify(self, manifest: Manifest, *, deep: bool = False) -> list[str]:
        """Says what is missing or wrong of a published unit; `deep` reads every byte."""
        with self._translated():
            self._check_mount()
            wanted = manifest.select(self.include, self.exclude)
            return find_remote_damage(FolderStore(self._root), wanted, deep=deep)

    def prune(self, run: str, keep: int, newest: str) -> list[str]:
        """Removes the run's oldest checkpoints beyond `keep` (0 keeps all) and names them; `newest` always stays."""
        with self._translated():
            self._check_mount()
            return remove_surplus(FolderStore(self._root), run, keep, newest)

    def uri_of(self, manifest: Manifest) -> str | None:
        """The public URL of a published unit, or its file:// URI."""
        if self.public_base_url:
            prefix = f"{self.base_path}/{manifest.prefix}".strip("/")
            return f"{self.public_base_url.rstrip('/')}/{quote(prefix)}"
        return (self._root / manifest.prefix).as_uri()

    @property
    def _root(self) -> Path:
        return self.path / self.base_path

    def _check_mount(self) -> None:
        # An unmounted share leaves its empty mount point behind: writing there would fill the system's disk.
        if not self.path.is_dir() or (self._device is not None and self.path.stat().st_dev != self._device):
            raise DestinationDown(f"{self.path} is gone: is the share still mounted?")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = error.filename2 or error.filename or self.path
            text = f"{self.name}: {error.strerror or error}: {where}."
            if error.errno in DOWN:
                raise DestinationDown(f"{text} Is the share still mounted?") from error
            raise PublishError(
                f"{text} {REMEDIES.get(error.errno or 0, 'Check the path and its permissions.')}"
            ) from error


class FolderStore:
    """The files below one folder; uploads gather in a hidden folder beside their place until they are settled."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._staged: list[tuple[Path, Path]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # After a fault that passes, the next attempt goes on with what was already copied and read back.
        if isinstance(error, DestinationDown) or (isinstance(error, OSError) and error.errno in DOWN):
            return
        for folder in {part.parent for part, _ in self._staged}:
            shutil.rmtree(folder, ignore_errors=True)

    def read(self, key: str) -> bytes | None:
        """The bytes of a file, None if there is none."""
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, key: str, data: bytes) -> None:
        """Writes a small file atomically."""
        durable.write_bytes(self._root / key, data)

    def size(self, key: str) -> int | None:
        """The size of a regular file, None if there is none."""
        path = self._root / key
        return path.stat().st_size if path.is_file() else None

    def stage(self, source: Path, key: str, record: FileRecord, on_bytes: Progress) -> None:
        """Copies a file to a hidden neighbour of its place, flushes it and reads it back from the disk."""
        target = self._root / key
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.parent / INCOMING / f"{target.name}.{record.sha256[:16]}"
        part.parent.mkdir(exist_ok=True)
        self._staged.append((part, target))
        if part.is_file() and _read_back(part) == record.sha256:
            on_bytes(record.size, record.size)
            return
        fresh = part.with_name(f"{part.name}.{uuid4().hex[:8]}")
        _copy(source, fresh, on_bytes)
        if _read_back(fresh) != record.sha256:
            fresh.unlink(missing_ok=True)
            raise DestinationDown(f"{target} reads back with other bytes than were written.")
        fresh.replace(part)

    def settle(self) -> None:
        """Renames everything staged into place."""
        for part, target in self._staged:
            part.replace(target)
        for folder in {target.parent for _, target in self._staged}:
            durable.sync_folder(folder)

    def delete(self, key: str) -> None:
        """Removes a file that may be missing, and folders that it leaves empty."""
        path = self._root / key
        path.unlink(missing_ok=True)
        for folder in path.relative_to(self._root).parents:
            with contextlib.suppress(OSError):  # not empty, or not there
                if folder != Path():
                    (self._root / folder).rmdir()

    def reserve(self, bytes: int) -> None:
        """Raises when the disk has no room for that much."""
        ground = next(path for path in (self._root, *self._root.parents) if path.exists())
        free = shutil.disk_usage(ground).free
        if bytes > free:
            raise OSError(errno.ENOSPC, f"needs {bytes >> 20} MiB, {free >> 20} MiB are free", str(self._root))

    def has_content(self, key: str, record: FileRecord) -> bool:
        """Whether a file has the recorded bytes."""
        return _read_back(self._root / key) == record.sha256

    def children(self, prefix: str) -> list[str]:
        """The names in a folder."""
        folder = self._root / prefix
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _copy(source: Path, target: Path, on_bytes: Progress) -> None:
    size, done = source.stat().st_size, 0
    with source.open("rb") as reader, target.open("xb") as writer:
        while block := reader.read(BLOCK_BYTES):
            writer.write(block)
            done += len(block)
            on_bytes(done, size)
        writer.flush()
        os.fsync(writer.fileno())


def _read_back(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        # Otherwise the answer would come from memory and prove nothing about the disk.
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
