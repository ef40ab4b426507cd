"""The Hub fake's API: who asks, repositories, their refs, trees and commits."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes.hub.accounts import whoami
from tests.fakes.hub.repos import Commit, Entry, Repo, git_blob, is_large
from tests.fakes.hub.state import HubState, RefusalError, commit_of

REPO = "/api/models/{namespace}/{name}"
Answer = Callable[[Request], Awaitable[Response]]


class Api:
    """The routes below /api."""

    def __init__(self, hub: HubState) -> None:
        self._hub = hub

    def routes(self) -> list[Route]:
        """All of them, the more special ones first."""
        return [
            Route("/api/whoami-v2", self._whoami),
            Route("/api/repos/create", self._create, methods=["POST"]),
            Route("/api/repos/delete", self._delete, methods=["DELETE"]),
            Route("/api/validate-yaml", self._validate_yaml, methods=["POST"]),
            Route(REPO, self._info),
            Route(f"{REPO}/revision/{{revision:path}}", self._info),
            Route(f"{REPO}/auth-check", self._check_access),
            Route(f"{REPO}/auth-check/write", self._check_access),
            Route(f"{REPO}/settings", self._settings, methods=["PUT"]),
            Route(f"{REPO}/refs", self._refs),
            Route(f"{REPO}/tree/{{rest:path}}", self._tree),
            Route(f"{REPO}/commits/{{revision:path}}", self._commits),
            Route(f"{REPO}/preupload/{{revision:path}}", self._preupload, methods=["POST"]),
            Route(f"{REPO}/paths-info/{{revision:path}}", self._paths_info, methods=["POST"]),
            Route(f"{REPO}/branch/{{ref:path}}", self._branch, methods=["POST", "DELETE"]),
            Route(f"{REPO}/tag/{{ref:path}}", self._tag, methods=["POST", "DELETE"]),
            Route(f"{REPO}/commit/{{revision:path}}", self._commit, methods=["POST"]),
        ]

    async def _whoami(self, request: Request) -> Response:
        return JSONResponse(whoami(self._hub.signed_in(request)))

    async def _create(self, request: Request) -> Response:
        token, said = self._hub.signed_in(request), await request.json()
        namespace = said.get("organization") or token.user.name
        repo_id = f"{namespace}/{said['name']}"
        if not re.fullmatch(r"[\w.-]{1,96}", said["name"]):
            raise RefusalError(400, "Invalid repo name")
        if not self._hub.accounts.may_write(token, namespace):
            raise RefusalError(403, f'You don\'t have the rights to create a model under the namespace "{namespace}"')
        url = f"{str(request.base_url).rstrip('/')}/{repo_id}"
        if repo_id in self._hub.repos:
            raise RefusalError(409, "You already created this model repo", url=url)
        is_private = said.get("visibility") == "private" or bool(said.get("private"))
        self._hub.create(repo_id, token.user.name, is_private=is_private)
        return JSONResponse({"url": url, "name": repo_id, "id": "1"})

    async def _delete(self, request: Request) -> Response:
        said = await request.json()
        namespace = said.get("organization") or self._hub.signed_in(request).user.name
        request.path_params.update(namespace=namespace, name=said["name"])
        self._hub.repos.pop(self._hub.repo_for(request, to_write=True).id)
        return JSONResponse({})

    async def _validate_yaml(self, request: Request) -> Response:
        return JSONResponse({"errors": [], "warnings": []})

    async def _info(self, request: Request) -> Response:
        repo = self._hub.repo_for(request)
        commit = commit_of(repo, request.path_params.get("revision", "main"))
        first = list(repo.history())[-1]
        siblings = [{"rfilename": path, "size": entry.size} for path, entry in sorted(commit.files.items())]
        about = {"_id": "1", "id": repo.id, "modelId": repo.id, "author": repo.namespace, "private": repo.is_private}
        told = {"sha": commit.id, "lastModified": commit.date, "createdAt": first.date, "siblings": siblings}
        return JSONResponse(
            {**about, **told, "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
        )

    async def _check_access(self, request: Request) -> Response:
        self._hub.repo_for(request, to_write=request.url.path.endswith("/write"))
        return JSONResponse({})

    async def _settings(self, request: Request) -> Response:
        repo, said = self._hub.repo_for(request, to_write=True), await request.json()
        repo.is_private = said.get("visibility") == "private" or bool(said.get("private"))
        return JSONResponse({"private": repo.is_private})

    async def _refs(self, request: Request) -> Response:
        repo = self._hub.repo_for(request)
        told = {
            name: [{"name": ref, "ref": f"refs/{kind}/{ref}", "targetCommit": commit} for ref, commit in refs.items()]
            for name, kind, refs in (("branches", "heads", repo.branches), ("tags", "tags", repo.tags))
        }
        return JSONResponse({**told, "converts": []})

    async def _branch(self, request: Request) -> Response:
        repo, ref = self._hub.repo_for(request, to_write=True), request.path_params["ref"]
        if request.method == "DELETE":
            repo.branches.pop(ref)
            return JSONResponse({})
        said = json.loads(await request.body() or b"{}")
        return _add_ref(repo, repo.branches, ref, said.get("startingPoint", "main"))

    async def _tag(self, request: Request) -> Response:
        repo, ref = self._hub.repo_for(request, to_write=True), request.path_params["ref"]
        if request.method == "DELETE":
            repo.tags.pop(ref)
            return JSONResponse({})
        return _add_ref(repo, repo.tags, (await request.json())["tag"], ref)

    async def _tree(self, request: Request) -> Response:
        revision, _, folder = request.path_params["rest"].partition("/")
        commit = commit_of(self._hub.repo_for(request), revision)
        is_recursive = request.query_params.get("recursive", "").lower() == "true"
        rows = _list_tree(commit, folder.strip("/"), is_recursive)
        if folder.strip("/") and not rows:
            raise RefusalError(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        start = int(request.query_params.get("cursor", 0))
        end = start + self._hub.page_size
        following = request.url.include_query_params(cursor=end)
        headers = {"Link": f'<{following}>; rel="next"'} if end < len(rows) else {}
        return JSONResponse(rows[start:end], headers=headers)

    async def _commits(self, request: Request) -> Response:
        repo, revision = self._hub.repo_for(request), request.path_params["revision"]
        commit_of(repo, revision)
        rows = [
            {
                "id": one.id,
                "title": one.title,
                "message": one.description,
                "date": one.date,
                "authors": [{"user": one.author}],
            }
            for one in repo.history(revision)
        ]
        return JSONResponse(rows)

    async def _preupload(self, request: Request) -> Response:
        repo = self._hub.repo_for(request, to_write=True)
        present = commit_of(repo, request.path_params["revision"]).files
        answers = []
        for file in (await request.json())["files"]:
            path, sample = file["path"], base64.b64decode(file["sample"])
            mode = "lfs" if is_large(path, file["size"], sample) else "regular"
            oid = present[path].oid if path in present else None
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return JSONResponse({"files": answers})

    async def _paths_info(self, request: Request) -> Response:
        files = commit_of(self._hub.repo_for(request), request.path_params["revision"]).files
        form = await request.form()
        paths = form.getlist("paths") if form else (await request.json())["paths"]
        return JSONResponse([_row(str(path), files[str(path)]) for path in paths if path in files])

    async def _commit(self, request: Request) -> Response:
        repo, branch = self._hub.repo_for(request, to_write=True), request.path_params["revision"]
        present = commit_of(repo, branch)
        head, *lines = [json.loads(line) for line in (await request.body()).splitlines() if line]
        about = head["value"]
        if about.get("parentCommit") and not present.id.startswith(about["parentCommit"]):
            raise RefusalError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(present.files)
        for line in lines:
            self._apply(files, line["key"], line["value"])
        author = self._hub.signed_in(request).user.name
        made = repo.add(files, about["summary"], about.get("description", ""), author, branch)
        url = f"{str(request.base_url).rstrip('/')}/{repo.id}/commit/{made.id}"
        return JSONResponse({"success": True, "commitOid": made.id, "commitUrl": url, "hookOutput": ""})

    def _apply(self, files: dict[str, Entry], key: str, value: dict[str, Any]) -> None:
        path = value["path"]
        if key == "file":
            files[path] = self._hub.blobs.small(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if not self._hub.blobs.has(value["oid"]):
                raise RefusalError(400, f"LFS pointer pointed to a file that does not exist: {path}")
            files[path] = self._hub.blobs.large(value["oid"])
        else:
            folder = f"{path.rstrip('/')}/"
            doomed = [name for name in files if name == path or (key == "deletedFolder" and name.startswith(folder))]
            if not doomed:
                raise RefusalError(404, "A file with this name doesn't exist", "EntryNotFound")
            for name in doomed:
                del files[name]


def _add_ref(repo: Repo, refs: dict[str, str], name: str, at: str) -> Response:
    if name in refs:
        raise RefusalError(409, f"Reference already exists: {name}")
    refs[name] = commit_of(repo, at).id
    return JSONResponse({})


def _list_tree(commit: Commit, folder: str, is_recursive: bool) -> list[dict[str, Any]]:
    start = f"{folder}/" if folder else ""
    rows: dict[str, dict[str, Any]] = {}
    for path, entry in sorted(commit.files.items()):
        if not path.startswith(start):
            continue
        parts = path.removeprefix(start).split("/")
        for depth in range(1, len(parts) if is_recursive else min(2, len(parts))):
            inner = start + "/".join(parts[:depth])
            rows.setdefault(inner, {"type": "directory", "path": inner, "oid": git_blob(inner.encode()), "size": 0})
        if is_recursive or len(parts) == 1:
            rows[path] = _row(path, entry)
    return list(rows.values())


def _row(path: str, entry: Entry) -> dict[str, Any]:
    row = {"type": "file", "path": path, "size": entry.size, "oid": entry.blob}
    return row | ({"lfs": {"oid": entry.sha256, "size": entry.size, "pointerSize": 130}} if entry.is_large else {})
