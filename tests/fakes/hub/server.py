"""A Hub in this process, good enough for the official client, transformers and diffusers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from tests.fakes.hub.api import Api
from tests.fakes.hub.content import Content
from tests.fakes.hub.faults import Watched
from tests.fakes.hub.state import HubState, RefusalError
from tests.fakes.hub.xet import Xet

START_S = 30


@dataclass(frozen=True)
class Hub:
    """A running fake: where it is, and what it knows."""

    port: int
    state: HubState

    @property
    def url(self) -> str:
        """What HF_ENDPOINT would say."""
        return f"http://127.0.0.1:{self.port}"

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Everything that stands in a repository, but `.gitattributes`."""
        commit = self.state.repos[repo_id].find(revision)
        assert commit is not None
        found = {path: self.state.blobs.path(entry.sha256).read_bytes() for path, entry in commit.files.items()}
        return {path: data for path, data in found.items() if path != ".gitattributes"}

    def titles(self, repo_id: str) -> list[str]:
        """The titles of its commits, newest first."""
        return [commit.title for commit in self.state.repos[repo_id].history()]


@contextlib.contextmanager
def serve(folder: Path, *, has_xet: bool = False) -> Iterator[Hub]:
    """Runs a Hub that keeps its contents in a folder."""
    state = HubState(folder, has_xet)
    app = Starlette(
        routes=[*Content(state).routes(), *Xet(state).routes(), *Api(state).routes()],
        exception_handlers={RefusalError: _tell_refusal},
    )
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(Watched(app, state.traffic), log_level="error", lifespan="off", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        # The socket listens already: whoever connects before the server is ready waits.
        yield Hub(listener.getsockname()[1], state)
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(START_S)
        listener.close()


async def _tell_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusalError)
    return error.response
