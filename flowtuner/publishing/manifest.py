"""The manifest: which files one published unit consists of; whoever finds it may trust that they are all there."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from flowtuner.durable import FileRecord

MANIFEST_NAME = "manifest.json"
VERSION = 1
CHECKPOINT_NAME = re.compile(r"checkpoint-\d+")

Kind = Literal["checkpoint", "release", "folder"]
"""`folder`: a whole output folder without its checkpoints, which are units of their own."""


@dataclass(frozen=True)
class Manifest:
    """One checkpoint or the release of a run, as it was frozen; `run` is the output folder's own name."""

    run: str
    name: str
    kind: Kind
    step: int
    run_id: str
    created: str
    files: tuple[FileRecord, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION
    crc32: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)
    """By path, taken when the unit was sealed, so that an upload need not hash it again; not stored."""

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(record.size for record in self.files)

    @property
    def prefix(self) -> str:
        """Where the unit stands below the destination's base path: checkpoints in folders of their own."""
        return f"{self.run}/{self.name}" if self.kind == "checkpoint" else self.run

    def select(self, include: Sequence[str], exclude: Sequence[str]) -> Self:
        """Keeps the files that a destination wants; patterns match paths within the unit."""
        return replace(self, files=tuple(record for record in self.files if _wants(record.path, include, exclude)))

    def describes_same(self, other: Manifest) -> bool:
        """Whether both describe the same content, whichever run wrote each and when."""
        mine = (self.run, self.name, self.kind, self.step, self.files)
        return mine == (other.run, other.name, other.kind, other.step, other.files)

    def to_bytes(self) -> bytes:
        """The manifest as it is stored; equal manifests have equal bytes."""
        stored = {key: value for key, value in asdict(self).items() if key != "crc32"}
        return (json.dumps(stored, indent=2, sort_keys=True) + "\n").encode()

    @property
    def sha256(self) -> str:
        """The digest of the stored form."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def parse_manifest(data: bytes | None) -> Manifest | None:
    """Reads a stored manifest; None when there is none or it is not one of ours."""
    if data is None:
        return None
    try:
        value = json.loads(data)
        if value.pop("version") != VERSION:
            return None
        return Manifest(**value | {"files": tuple(FileRecord(**record) for record in value["files"])})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _wants(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    if include and not any(_matches(path, pattern) for pattern in include):
        return False
    return not any(_matches(path, pattern) for pattern in exclude)


def _matches(path: str, pattern: str) -> bool:
    # A folder's name stands for everything in it, as in .gitignore.
    return fnmatch.fnmatchcase(path, pattern) or path.startswith(pattern.rstrip("/") + "/")
