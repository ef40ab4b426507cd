"""What a Dropbox account holds and how it refuses: files, upload sessions, links, tokens, room."""

from __future__ import annotations

import threading
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from dropbox.content_hash import content_hash

SCOPES = frozenset(
    {
        "account_info.read", "files.metadata.read", "files.content.read", "files.content.write",
        "sharing.read", "sharing.write",
    }
)  # fmt: skip
SHORT_LIVED_S = 14400
SESSION_LIFETIME_S = 7 * 86400


class Refusal(Exception):  # noqa: N818  what the service answers, not a failure of the fake
    """An answer that is no success."""

    def __init__(self, status: int, error: Any, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error)
        self.status, self.error, self.headers = status, error, dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The body as the service words it."""
        if isinstance(self.error, str):
            return {"error": self.error}
        return {"error_summary": f"{self.error.get('.tag')}/...", "error": self.error}


def refuse(tag: str, value: Any = None, **fields: Any) -> Refusal:
    """A refusal by a route of its own kind."""
    inner = {tag: {".tag": value} if isinstance(value, str) else value} if value is not None else {}
    return Refusal(409, {".tag": tag, **inner, **fields})


@dataclass
class StoredFile:
    """One file, under the name it was given."""

    path: str
    data: bytes
    rev: str = field(default_factory=lambda: uuid4().hex[:15])
    id: str = field(default_factory=lambda: f"id:{uuid4().hex[:22]}")
    content_hash: str = ""

    def __post_init__(self) -> None:
        self.content_hash = content_hash(self.data)

    def metadata(self) -> dict[str, Any]:
        """What the service tells of it."""
        moment = "2026-01-01T00:00:00Z"
        return {
            ".tag": "file", "name": self.path.rpartition("/")[2], "id": self.id, "rev": self.rev,
            "client_modified": moment, "server_modified": moment, "size": len(self.data),
            "path_lower": fold(self.path), "path_display": self.path, "is_downloadable": True,
            "content_hash": self.content_hash,
        }  # fmt: skip


@dataclass
class UploadSession:
    """Bytes on their way to a file."""

    started: float
    data: bytearray = field(default_factory=bytearray)
    is_closed: bool = False


@dataclass
class Token:
    """An access token: until when, and for what."""

    expires: float | None = None
    scopes: frozenset[str] = SCOPES


@dataclass
class Account:
    """The state of one account; time is what `clock` says."""

    clock: Callable[[], float] = time.time
    quota: int = 1 << 40
    root_namespace: str = "7"
    cuts: list[int] = field(default_factory=list)
    """After how many bytes the next downloads of larger files break off."""
    busy: int = 0
    """How many commits are refused because there are too many at once."""
    files: dict[str, StoredFile] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, UploadSession] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    refresh_tokens: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    jobs: dict[str, Any] = field(default_factory=dict)
    cursors: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    requests: list[tuple[str, int]] = field(default_factory=list)
    roots: list[str | None] = field(default_factory=list)
    hooks: list[Callable[[str], None]] = field(default_factory=list)
    """Called with each route before it is served; what they raise is the answer."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def used(self) -> int:
        """Bytes of all files."""
        return sum(len(file.data) for file in self.files.values())

    def grant(self, token: str = "", *, lifetime_s: float | None = None, scopes: frozenset[str] = SCOPES) -> str:
        """Makes an access token valid; without a name a short-lived one."""
        if not token:
            token, lifetime_s = f"sl.{uuid4().hex}", SHORT_LIVED_S if lifetime_s is None else lifetime_s
        self.tokens[token] = Token(None if lifetime_s is None else self.clock() + lifetime_s, scopes)
        return token

    def check_token(self, token: str, scope: str) -> None:
        """Refuses whoever may not ask this."""
        known = self.tokens.get(token)
        if known is None:
            raise Refusal(401, {".tag": "invalid_access_token"})
        if known.expires is not None and self.clock() >= known.expires:
            raise Refusal(401, {".tag": "expired_access_token"})
        if scope not in known.scopes:
            raise Refusal(401, {".tag": "missing_scope", "required_scope": scope})

    def commit(self, info: Mapping[str, Any], data: bytes) -> StoredFile:
        """Makes a file of bytes, by the rules of its write mode; what it raises is a WriteError."""
        if self.busy:
            self.busy -= 1
            raise refuse("too_many_write_operations")
        path, lower = str(info["path"]), fold(str(info["path"]))
        if not path.startswith("/") or "//" in path or path.endswith("/"):
            raise refuse("malformed_path")
        if lower in self.folders:
            raise refuse("conflict", "folder")
        if any(parent in self.files for parent in parents_of(lower)):
            raise refuse("conflict", "file_ancestor")
        old = self.files.get(lower)
        if old is not None and not _may_replace(info, old, data):
            raise refuse("conflict", "file")
        if self.used - (len(old.data) if old else 0) + len(data) > self.quota:
            raise refuse("insufficient_space")
        if old is not None and old.data == data:
            return old
        for parent in parents_of(path):
            self.folders.setdefault(fold(parent), parent)
        self.files[lower] = StoredFile(path, data, id=old.id if old else f"id:{uuid4().hex[:22]}")
        return self.files[lower]

    def remove(self, path: str) -> dict[str, Any]:
        """Removes a file, or a folder with everything in it."""
        lower = fold(path)
        if lower in self.files:
            self.links.pop(lower, None)
            return self.files.pop(lower).metadata()
        if lower not in self.folders:
            raise refuse("path_lookup", "not_found")
        told = self.folder_metadata(lower)
        for kept in (self.files, self.folders, self.links):
            for key in [key for key in kept if key == lower or key.startswith(f"{lower}/")]:
                del kept[key]  # type: ignore[attr-defined]
        return told

    def folder_metadata(self, lower: str) -> dict[str, Any]:
        """What the service tells of a folder."""
        path = self.folders[lower]
        name = path.rpartition("/")[2]
        return {".tag": "folder", "name": name, "id": f"id:{lower}", "path_lower": lower, "path_display": path}

    def session(self, cursor: Mapping[str, Any]) -> UploadSession:
        """The session of a cursor, if its offset is right; what it raises is an UploadSessionLookupError."""
        found = self.sessions.get(cursor["session_id"])
        if found is None or self.clock() - found.started > SESSION_LIFETIME_S:
            raise refuse("not_found")
        if found.is_closed:
            raise refuse("closed")
        if cursor["offset"] != len(found.data):
            raise refuse("incorrect_offset", correct_offset=len(found.data))
        return found


def fold(path: str) -> str:
    """The form in which two paths are the same file."""
    return unicodedata.normalize("NFC", path).lower()


def parents_of(path: str) -> list[str]:
    """The folders above a path, without the root."""
    parts = path.split("/")[1:-1]
    return ["/" + "/".join(parts[: count + 1]) for count in range(len(parts))]


def _may_replace(info: Mapping[str, Any], old: StoredFile, data: bytes) -> bool:
    mode = info.get("mode", "add")
    tag = mode if isinstance(mode, str) else mode[".tag"]
    if old.data == data and not info.get("strict_conflict"):
        return True
    return tag == "overwrite" or (tag == "update" and mode["update"] == old.rev)
