"""What the Hub fake knows, and the checks that every request goes through."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from tests.fakes.hub.accounts import Accounts, Token
from tests.fakes.hub.faults import Traffic
from tests.fakes.hub.repos import Blobs, Commit, Repo, attributes

PART_BYTES = 5 << 20


class RefusalError(Exception):
    """An answer that is no success, as the Hub words it."""

    def __init__(self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None, **body: Any):
        told = {"X-Error-Message": message, "X-Request-Id": secrets.token_hex(4), **(headers or {})}
        told |= {"X-Error-Code": code} if code else {}
        self.response = JSONResponse({"error": message, **body}, status, told)


@dataclass
class HubState:
    """Accounts, repositories and contents; tests read and change them directly."""

    folder: Path
    has_xet: bool = False
    part_bytes: int = PART_BYTES
    page_size: int = 1000
    accounts: Accounts = field(default_factory=Accounts.usual)
    repos: dict[str, Repo] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        self.blobs = Blobs(self.folder / "blobs")

    def create(self, repo_id: str, author: str, *, is_private: bool) -> Repo:
        """Makes a repository with its first commit."""
        repo = self.repos[repo_id] = Repo(repo_id, is_private)
        repo.add({".gitattributes": self.blobs.small(attributes())}, "initial commit", "", author, "main")
        return repo

    def token_of(self, request: Request) -> Token | None:
        """Who asks; a token that is not valid is refused even where none is needed."""
        said = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not said:
            return None
        token = self.accounts.tokens.get(said)
        if token is None or token.is_expired:
            raise RefusalError(401, "Invalid credentials in Authorization header")
        return token

    def signed_in(self, request: Request) -> Token:
        """Who asks, where somebody must."""
        token = self.token_of(request)
        if token is None:
            raise RefusalError(401, "Invalid username or password.")
        return token

    def repo_for(self, request: Request, *, to_write: bool = False) -> Repo:
        """The repository of a request's path, if the asker may see it, or write it."""
        token = self.signed_in(request) if to_write else self.token_of(request)
        repo = self.repos.get(f"{request.path_params['namespace']}/{request.path_params['name']}")
        if repo is None or (repo.is_private and not self.accounts.may_read(token, repo.namespace)):
            # Without a token the Hub does not say which of the two it is.
            raise RefusalError(404 if token else 401, "Repository not found", "RepoNotFound")
        if to_write and not self.accounts.may_write(token, repo.namespace, repo.id):
            raise RefusalError(403, f"You don't have the rights to write to {repo.id}")
        return repo


def commit_of(repo: Repo, revision: str) -> Commit:
    """The commit that a revision names."""
    commit = repo.find(revision)
    if commit is None:
        raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit
