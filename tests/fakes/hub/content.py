"""How contents reach the Hub fake and leave it: LFS in one request or in parts, tokens for xet, and downloads."""

from __future__ import annotations

import hashlib
import secrets
import time
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from tests.fakes.hub.state import HubState, RefusalError, commit_of
from tests.fakes.hub.xet import ACCESS_TOKEN, PLACE

TOKEN_S = 3600


class Content:
    """The routes that carry bytes."""

    def __init__(self, hub: HubState) -> None:
        self._hub = hub

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/api/models/{namespace}/{name}/xet-{mode}-token/{revision:path}", self._xet_token),
            Route("/{namespace}/{name}.git/info/lfs/objects/batch", self._batch, methods=["POST"]),
            Route("/_lfs/verify", self._verify, methods=["POST"]),
            Route("/_lfs/{sha256}", self._put, methods=["PUT"]),
            Route("/_lfs/{sha256}/complete", self._complete, methods=["POST"]),
            Route("/_lfs/{sha256}/{part:int}", self._put, methods=["PUT"]),
            Route("/{namespace}/{name}/resolve/{revision}/{path:path}", self._resolve),
        ]

    async def _xet_token(self, request: Request) -> Response:
        self._hub.repo_for(request, to_write=request.path_params["mode"] == "write")
        if not self._hub.has_xet:
            raise RefusalError(404, "no xet here")
        place, expires = f"{str(request.base_url).rstrip('/')}{PLACE}", int(time.time()) + TOKEN_S
        headers = {"X-Xet-Cas-Url": place, "X-Xet-Access-Token": ACCESS_TOKEN, "X-Xet-Token-Expiration": str(expires)}
        return JSONResponse({"accessToken": ACCESS_TOKEN, "exp": expires, "casUrl": place}, headers=headers)

    async def _batch(self, request: Request) -> Response:
        self._hub.repo_for(request, to_write=True)
        said, base = await request.json(), f"{str(request.base_url).rstrip('/')}/_lfs"
        has_parts = "multipart" in said["transfers"]
        return JSONResponse(
            {"transfer": "basic", "objects": [self._offer(one, base, has_parts) for one in said["objects"]]}
        )

    def _offer(self, wanted: dict[str, int | str], base: str, has_parts: bool) -> dict[str, object]:
        sha256, size = str(wanted["oid"]), int(wanted["size"])
        if self._hub.blobs.has(sha256):
            return dict(wanted)
        upload: dict[str, object] = {"href": f"{base}/{sha256}", "header": {}}
        if size > self._hub.part_bytes and has_parts:
            count = -(-size // self._hub.part_bytes)
            parts = {f"{number:05d}": f"{base}/{sha256}/{number}" for number in range(1, count + 1)}
            header = {"chunk_size": str(self._hub.part_bytes), **parts}
            upload = {"href": f"{base}/{sha256}/complete", "header": header}
        return {**wanted, "actions": {"upload": upload, "verify": {"href": f"{base}/verify", "header": {}}}}

    async def _put(self, request: Request) -> Response:
        sha256, part = request.path_params["sha256"], request.path_params.get("part")
        incoming = self._hub.blobs.path(f".{sha256}.{secrets.token_hex(4)}")
        digest = hashlib.sha256()
        with incoming.open("wb") as file:
            async for block in request.stream():
                file.write(block)
                digest.update(block)
        if part is None and digest.hexdigest() != sha256:
            incoming.unlink()
            raise RefusalError(400, "The content does not have the announced SHA-256")
        incoming.rename(self._hub.blobs.path(sha256) if part is None else self._part(sha256, part))
        return Response(headers={"etag": f'"{digest.hexdigest()[:32]}"'})

    async def _complete(self, request: Request) -> Response:
        sha256, said = request.path_params["sha256"], await request.json()
        parts = [self._part(sha256, part["partNumber"]) for part in said["parts"]]
        if not all(part.is_file() for part in parts):
            raise RefusalError(400, "Parts are missing")
        data = b"".join(part.read_bytes() for part in parts)
        for part in parts:
            part.unlink()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise RefusalError(400, "The parts do not have the announced SHA-256")
        self._hub.blobs.put(data)
        return JSONResponse({})

    async def _verify(self, request: Request) -> Response:
        said = await request.json()
        path = self._hub.blobs.path(said["oid"])
        if not path.is_file() or path.stat().st_size != said["size"]:
            raise RefusalError(404, "The object is missing")
        return JSONResponse({})

    async def _resolve(self, request: Request) -> Response:
        commit = commit_of(self._hub.repo_for(request), request.path_params["revision"])
        entry = commit.files.get(request.path_params["path"])
        if entry is None:
            raise RefusalError(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit.id})
        headers = {"X-Repo-Commit": commit.id, "ETag": f'"{entry.oid}"'}
        if entry.is_large:
            headers |= {"X-Linked-Etag": f'"{entry.oid}"', "X-Linked-Size": str(entry.size)}
        path = self._hub.blobs.path(entry.sha256)
        return FileResponse(path, headers=headers, media_type="application/octet-stream")

    def _part(self, sha256: str, number: int) -> Path:
        return self._hub.blobs.path(f".{sha256}.part-{number}")
