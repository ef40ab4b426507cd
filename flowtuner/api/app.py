"""Puts the server together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from fastapi import APIRouter, FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.dependencies.models import Dependant
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute, APIWebSocketRoute

from flowtuner import __version__
from flowtuner.api.auth.caller import has_users
from flowtuner.api.auth.limits import RateLimiter
from flowtuner.api.auth.uses import KeyUses
from flowtuner.api.board import Board
from flowtuner.api.deps import get_caller
from flowtuner.api.errors import install_error_handlers
from flowtuner.api.memory import Memory
from flowtuner.api.protection import Protection
from flowtuner.api.routes import (
    auth,
    configs,
    datasets,
    events,
    jobs,
    pages,
    queue,
    runs,
    summary,
    system,
    training,
    users,
)
from flowtuner.api.settings import ServerSettings
from flowtuner.jobs import starting
from flowtuner.jobs.environments import EnvironmentStore
from flowtuner.jobs.loop import JobsLoop
from flowtuner.jobs.tokens import RunTokens
from flowtuner.records.database import Database

EVERYWHERE = "0.0.0.0"  # noqa: S104
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MODULES = (pages, system, auth, users, configs, datasets, training, summary, events, queue, jobs, runs)
ROUTERS: tuple[APIRouter, ...] = tuple(module.router for module in MODULES)
# Everything else asks who is there; a route that forgets to keeps the server from starting.
PUBLIC = frozenset(
    {
        "/health",
        "/ready",
        *pages.PUBLIC,
        *runs.PUBLIC,
        *(prefix + path for path in auth.PUBLIC for prefix in (auth.PREFIX, auth.OLD_PREFIX)),
    }
)


class Services(Protocol):
    """What a server needs beside itself: Prefect, and a worker."""

    ui_url: str | None
    """Where people look at Prefect, once it is known."""

    def start(self, jobs: JobsLoop) -> None:
        """Begins; starts the jobs once everything is there."""

    def describe_fault(self) -> str | None:
        """Why jobs cannot run yet; None once they can."""


def create_app(settings: ServerSettings, services: Services | None = None, first: str | None = None) -> FastAPI:
    """A server over these settings; its database is opened and brought up to date when it starts.

    Its jobs begin once the services say that Prefect is there; without services somebody else starts them. The
    environment named `first` is queued at the start.
    """

    @contextlib.asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        database = Database(settings.database_url)
        database.migrate()
        board = Board(database, settings.home)
        board.open()
        loop = JobsLoop(database, settings.home, board.tell, settings.public_url)
        app.state.tokens = RunTokens(database, settings.public_url)
        app.state.database, app.state.board, app.state.jobs = database, board, loop
        app.state.memory, app.state.closing = Memory(database), asyncio.Event()
        if first:
            starting.queue_first(database, EnvironmentStore(settings.config_dir), first)
        if services:
            services.start(loop)
        try:
            yield
        finally:
            app.state.closing.set()
            await run_in_threadpool(loop.close)
            database.close()

    app = FastAPI(title="Flowtuner", version=__version__, lifespan=live, docs_url=None, redoc_url=None)
    app.state.settings, app.state.services = settings, services
    app.state.limiter, app.state.key_uses = RateLimiter(), KeyUses()
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.allowed_origins,
        allow_credentials=True,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["ETag", "X-Job-Id", "Retry-After"],
    )
    app.add_middleware(Protection)
    install_error_handlers(app)
    for router in ROUTERS:
        # Flat, with whole paths: every route can be looked at, below and in the tests.
        app.router.routes.extend(router.routes)
    refuse_open_routes(app)
    pages.mount_files(app)
    return app


def choose_host(settings: ServerSettings, *, is_given: bool) -> tuple[str, bool]:
    """Where to listen, and whether the first administrator needs the set-up token there.

    Until there is an administrator that is this machine alone, unless somebody asks for another address.
    """
    database = Database(settings.database_url)
    try:
        database.migrate()
        with database.reading() as session:
            has_admin = has_users(session)
    finally:
        database.close()
    host = settings.host if is_given or not has_admin else EVERYWHERE
    return host, not has_admin and host not in LOOPBACK


def refuse_open_routes(app: FastAPI) -> None:
    """Fails if a route that is not public neither requires a permission nor asks who is there."""
    open_paths = [
        route.path
        for route in app.routes
        if isinstance(route, APIRoute | APIWebSocketRoute)
        if route.path not in PUBLIC and not _asks(route.dependant)
    ]
    if open_paths:
        raise RuntimeError(f"open to everybody, and not in PUBLIC: {', '.join(open_paths)}")


def _asks(dependant: Dependant) -> bool:
    return any(call is get_caller for call in _calls(dependant))


def _calls(dependant: Dependant) -> Iterator[object]:
    for each in dependant.dependencies:
        yield each.call
        yield from _calls(each)
