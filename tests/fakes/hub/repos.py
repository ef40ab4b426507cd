"""The repositories of the Hub fake: blobs on disk, commits that name them, branches and tags that name commits."""

from __future__ import annotations

import fnmatch
import hashlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

LARGE = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.png", "*.jpg", "*.gguf", "*.zip")
LARGE_BYTES = 10 << 20


@dataclass(frozen=True)
class Entry:
    """One file of a commit."""

    sha256: str
    blob: str
    size: int
    is_large: bool

    @property
    def oid(self) -> str:
        """What the Hub knows the content by: the SHA-256 of large files, git's digest of small ones."""
        return self.sha256 if self.is_large else self.blob


@dataclass(frozen=True)
class Commit:
    """One state of a repository."""

    id: str
    parent: str | None
    title: str
    description: str
    author: str
    date: str
    files: Mapping[str, Entry]


@dataclass
class Repo:
    """A repository with its history."""

    id: str
    is_private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """The user or organisation that owns it."""
        return self.id.partition("/")[0]

    def find(self, revision: str) -> Commit | None:
        """The commit that a branch, a tag or the beginning of an id names."""
        wanted = self.branches.get(revision) or self.tags.get(revision) or revision
        return next((commit for name, commit in self.commits.items() if name.startswith(wanted)), None)

    def history(self, revision: str = "main") -> Iterator[Commit]:
        """The commits of a revision, newest first."""
        commit = self.find(revision)
        while commit:
            yield commit
            commit = self.commits.get(commit.parent or "")

    def add(self, files: Mapping[str, Entry], title: str, description: str, author: str, branch: str) -> Commit:
        """Makes a commit on a branch."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        parent = self.branches.get(branch)
        commit = Commit(secrets.token_hex(20), parent, title, description, author, now, dict(files))
        self.commits[commit.id] = commit
        self.branches[branch] = commit.id
        return commit


class Blobs:
    """Contents by their SHA-256, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where a content is kept."""
        return self.folder / sha256

    def put(self, data: bytes) -> str:
        """Keeps a content."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.path(sha256).write_bytes(data)
        return sha256

    def has(self, sha256: str) -> bool:
        """Whether a content arrived."""
        return self.path(sha256).is_file()

    def small(self, data: bytes) -> Entry:
        """Keeps what stands in the commit itself."""
        return Entry(self.put(data), git_blob(data), len(data), is_large=False)

    def large(self, sha256: str) -> Entry:
        """Names what was uploaded before the commit."""
        return Entry(sha256, git_blob(sha256.encode()), self.path(sha256).stat().st_size, is_large=True)


def git_blob(data: bytes) -> str:
    """The digest by which git knows a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_large(path: str, size: int, sample: bytes) -> bool:
    """Whether the Hub keeps a file outside of git."""
    name = PurePosixPath(path).name
    return size > LARGE_BYTES or b"\0" in sample or any(fnmatch.fnmatch(name, pattern) for pattern in LARGE)


def attributes() -> bytes:
    """The `.gitattributes` that every repository begins with."""
    return "\n".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text" for pattern in LARGE).encode()
