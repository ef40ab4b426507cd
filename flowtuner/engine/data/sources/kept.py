"""Pictures from elsewhere, kept as files under the hash of what they are called there."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from pathlib import Path

from PIL import Image

from flowtuner.engine.data.files import FoundFile, stamp_of
from flowtuner.engine.data.images import DECODE_ERRORS


class KeptFiles:
    """A folder of pictures by their names elsewhere; each appears whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = f"{folder.absolute()}/"

    def find(self, name: str) -> Path | None:
        """The file that is kept under this name."""
        stem = self._stem(name)
        return next(iter(stem.parent.glob(f"{stem.name}.*")), None) if stem.parent.is_dir() else None

    def keep(self, name: str, data: bytes) -> Path:
        """Keeps a picture under this name."""
        stem = self._stem(name)
        stem.parent.mkdir(parents=True, exist_ok=True)
        target = stem.with_name(f"{stem.name}{_suffix(data)}")
        part = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            part.write_bytes(data)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)  # there only if something went wrong
        return target

    def describe(self, path: Path, captions: tuple[str, ...] | None) -> FoundFile:
        """A kept file as the scan takes it."""
        return FoundFile(str(path.absolute()), stamp_of(path.stat()), captions)

    def _stem(self, name: str) -> Path:
        key = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / key[:2] / key


def _suffix(data: bytes) -> str:
    # What it is, not what it was called; one that is no picture is still named by the scan.
    try:
        with Image.open(io.BytesIO(data)) as image:
            return f".{(image.format or 'bin').lower()}"
    except DECODE_ERRORS:
        return ".bin"
