"""Publishing to a folder: a mounted share or another disk, the built-in destination and the pattern for the others."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit
from uuid import uuid4

from pydantic import Field, PrivateAttr, field_validator, model_validator

from blocks.parts.kept import KeptDestination
from flowtuner import durable
from flowtuner.durable import FileRecord
from flowtuner.errors import DestinationDown, PublishError
from flowtuner.publishing.addresses import path_parts, split_place
from flowtuner.publishing.destination import Progress
from flowtuner.publishing.manifest import Manifest

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


class FolderDestination(KeptDestination):
    """A folder that keeps checkpoints and releases, each proved by its manifest.

    Example:
        ```python
        from blocks.folder import FolderDestination

        destination = FolderDestination.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Flowtuner Folder"
    _block_type_slug = "flowtuner-folder"
    _description = "Publishes checkpoints and releases to a folder, such as a mounted share."

    provider: ClassVar[str] = "folder"
    aliases: ClassVar[tuple[str, ...]] = ("directory", "local")

    path: Path = Field(
        description="The folder, such as the mount point of a share; made if only its last part is missing."
    )
    _device: int | None = PrivateAttr(None)

    @field_validator("path")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return Path(os.path.abspath(value.expanduser()))

    @model_validator(mode="after")
    def _name_it(self) -> Self:
        self.name = self.name or f"{self.provider}:{self.path}"
        return self

    @classmethod
    def entry_of_uri(cls, uri: str) -> dict[str, Any] | None:
        """An entry without credentials whose destination can follow a URI; None if the URI is of another kind."""
        url = urlsplit(uri)
        if url.scheme.lower() != "file" or url.netloc not in ("", "localhost"):
            return None
        found = split_place(path_parts(url.path))
        return {"provider": cls.provider, "path": f"/{found[0]}"} if found else None

    @property
    def local_folder(self) -> Path | None:
        """The folder, which may vanish with the machine."""
        return self.path

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
        super().probe(output_dir)

    def _open_store(self, manifest: Manifest | None = None) -> FolderStore:
        # An unmounted share leaves its empty mount point behind: writing there would fill the system's disk.
        if not self.path.is_dir() or (self._device is not None and self.path.stat().st_dev != self._device):
            raise DestinationDown(f"{self.path} is gone: is the share still mounted?")
        return FolderStore(self._root)

    def _base_uri(self) -> str:
        return self.path.as_uri()

    @property
    def _root(self) -> Path:
        return self.path / self.base_path

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

    def write(self, key: str, data: bytes, *, is_new: bool = False) -> None:
        """Writes a small file atomically."""
        durable.write_bytes(self._root / key, data)

    def sizes(self, prefix: str, span: tuple[str, str] | None = None) -> Mapping[str, int]:
        """The sizes of all regular files in a folder, by their keys."""
        found = (path for path in (self._root / prefix).rglob("*") if path.is_file())
        return {path.relative_to(self._root).as_posix(): path.stat().st_size for path in found}

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

    def delete(self, *keys: str) -> None:
        """Removes files that may be missing, and folders that they leave empty."""
        for key in keys:
            path = self._root / key
            path.unlink(missing_ok=True)
            for folder in path.relative_to(self._root).parents:
                with contextlib.suppress(OSError):  # not empty, or not there
                    if folder != Path():
                        (self._root / folder).rmdir()

    def drop_unfinished(self, prefix: str, older_than_s: float = 0) -> None:
        """Removes the copies that were begun below a folder and never came to their end."""
        for folder in (self._root / prefix).rglob(INCOMING):
            if time.time() - folder.stat().st_mtime >= older_than_s:
                shutil.rmtree(folder, ignore_errors=True)

    def reserve(self, bytes: int) -> None:
        """Raises when the disk has no room for that much."""
        ground = next(path for path in (self._root, *self._root.parents) if path.exists())
        free = shutil.disk_usage(ground).free
        if bytes > free:
            raise OSError(errno.ENOSPC, f"needs {bytes >> 20} MiB, {free >> 20} MiB are free", str(self._root))

    def chunks(self, key: str, offset: int) -> Iterator[bytes]:
        """The bytes of a file from an offset to its end."""
        path = self._root / key
        if not path.is_file():
            raise PublishError(f"{path} is missing. Use another checkpoint, or publish this one again.")
        with path.open("rb") as file:
            file.seek(offset)
            while block := file.read(BLOCK_BYTES):
                yield block

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
