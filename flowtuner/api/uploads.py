"""Uploads: streamed into a folder beside the target, checked, then moved in as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from flowtuner.api.errors import ApiError

PICTURES = ("png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff", "avif", "jxl")
FILMS = ("mp4", "mov", "webm", "mkv", "avi")
TABLES = ("txt", "parquet", "jsonl", "csv", "json")
ALLOWED = frozenset(f".{ending}" for ending in (*PICTURES, *FILMS, *TABLES))
FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]')
DRIVE = re.compile(r"^[A-Za-z]:")
NAME_BYTES = 255
STAGING = ".upload-"
CHUNK = 1 << 20


@dataclass(frozen=True)
class UploadLimits:
    """How much one request may bring."""

    file_bytes: int = 2 << 30
    request_bytes: int = 20 << 30
    members: int = 100_000
    expanded_bytes: int = 50 << 30
    ratio: int = 200
    """How many times its packed size a member may be; text that is all one letter comes near a thousand."""

    margin_bytes: int = 256 << 20
    """What is left free on the disk."""


@dataclass
class Staging:
    """What came so far: files in a hidden folder that vanishes unless they are moved in."""

    folder: Path
    names: list[str] = field(default_factory=list)

    def place(self, name: str) -> Path:
        """Where a file goes before it is accepted; one with the same name gets a number."""
        path = PurePosixPath(name)
        taken = {one.casefold() for one in self.names}
        number = 0
        while (final := str(path) if not number else str(path.with_stem(f"{path.stem}_{number}"))).casefold() in taken:
            number += 1
        self.names.append(final)
        target = self.folder / final
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def move_in(self, target: Path, *, overwrites: bool) -> None:
        """Moves all files into the target; refuses all if one would replace another's."""
        present = [name for name in self.names if (target / name).exists()]
        if present and not overwrites:
            raise ApiError(
                409,
                "files_present",
                f"{len(present)} of the files are there already, {present[0]} among them; "
                "send overwrite=true to replace them",
            )
        for name in self.names:
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.parent.resolve().is_relative_to(target.resolve()):
                raise ApiError(400, "path_outside", f"{name} leads out of the folder")
            os.replace(self.folder / name, place)


@contextlib.contextmanager
def staging(root: Path) -> Iterator[Staging]:
    """A place for what is coming; whatever is not moved in is gone afterwards."""
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"{STAGING}{secrets.token_hex(8)}"
    folder.mkdir()
    try:
        yield Staging(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def resolve_folder(root: Path, wanted: str, *, must_exist: bool = True) -> Path:
    """A folder below the data sets' root; 403 for one elsewhere, 404 for none."""
    if "\x00" in wanted:
        raise ApiError(400, "bad_path", "The path holds a zero byte")
    base = root.resolve()
    try:
        path = (base / os.path.expanduser(wanted)).resolve()
    except (OSError, RuntimeError) as error:
        raise ApiError(400, "bad_path", f"The path cannot be followed: {error}") from error
    if not path.is_relative_to(base):
        raise ApiError(
            403,
            "path_outside",
            f"Access denied: path is outside configured datasets directory. It is {root}; DATASETS_DIR sets another",
        )
    if path == base:
        base.mkdir(parents=True, exist_ok=True)
    if must_exist and not os.path.isdir(path):
        raise ApiError(404, "folder_not_found", f"There is no folder {wanted}: create it at /api/datasets/folders")
    return path


def check_folder_name(name: str) -> str:
    """A new folder's name, or 400."""
    bad = not name or name.startswith(".") or "/" in name or "\\" in name or FORBIDDEN.search(name) is not None
    if bad or len(os.fsencode(name.encode("utf-8", "replace"))) > NAME_BYTES:
        raise ApiError(
            400,
            "bad_name",
            'The name of a folder is not empty, begins with no dot, has no / \\ < > : " | ? *, and at most 255 bytes',
        )
    return name


def check_file_name(name: str) -> str:
    """A single file's name, or 400 for one that leads elsewhere or is of no use in a data set."""
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        raise ApiError(400, "bad_name", f"'{name[:100]}' is no file name: send it without folders")
    return _check_part(name, is_file=True)


def unpack(archive: Path, stage: Staging, limits: UploadLimits) -> list[str]:
    """Unpacks a zip file, counting what really comes out; what is left out is returned with the reason."""
    try:
        with zipfile.ZipFile(archive) as packed:
            members = packed.infolist()
            if len(members) > limits.members:
                raise ApiError(413, "too_many_members", f"The ZIP has {len(members)} members; {limits.members} may be")
            return list(_unpack_all(packed, members, stage, limits))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ApiError(400, "bad_zip", f"The ZIP cannot be read: {error}") from error
    except UnicodeError as error:
        raise ApiError(400, "bad_zip", "The ZIP has a name that is no text") from error


def _unpack_all(
    packed: zipfile.ZipFile, members: list[zipfile.ZipInfo], stage: Staging, limits: UploadLimits
) -> Iterator[str]:
    left = limits.expanded_bytes
    for member in members:
        if member.is_dir():
            continue
        if reason := _find_fault(member):
            yield f"{member.filename[:200]}: {reason}"
            continue
        most = min(left, limits.file_bytes, max(member.compress_size, 1) * limits.ratio + CHUNK)
        left -= _copy_member(packed, member, stage.place(member.filename), most)


def _copy_member(packed: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, most: int) -> int:
    written = 0
    with packed.open(member) as source, target.open("wb") as file:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > most:
                raise ApiError(
                    413, "expands_too_far", f"{member.filename[:200]} expands to more than {most >> 20} MiB: refused"
                )
            file.write(chunk)
    return written


def _find_fault(member: zipfile.ZipInfo) -> str | None:
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a link"
    if member.flag_bits & 1:
        return "is encrypted"
    parts = member.filename.split("/")
    if "\\" in member.filename or DRIVE.match(member.filename) or parts[0] == "" or ".." in parts:
        return "leads out of the folder"
    try:
        for part in parts[:-1]:
            _check_part(part, is_file=False)
        _check_part(parts[-1], is_file=True)
    except ApiError as error:
        return error.detail
    return None


def _check_part(name: str, *, is_file: bool) -> str:
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise ApiError(400, "bad_name", "A file name is no text") from error
    if FORBIDDEN.search(name) or name.startswith(".") or size > NAME_BYTES:
        raise ApiError(400, "bad_name", f"'{name[:100]}' cannot be a name here")
    if is_file and os.path.splitext(name)[1].lower() not in ALLOWED:
        raise ApiError(400, "bad_extension", f"'{name[:100]}' is no file of a data set; allowed: {_endings()}")
    return name


def _endings() -> str:
    return ", ".join(sorted(ALLOWED))
