"""Puts the server together."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIWebSocketRoute

from flowtuner import __version__
from flowtuner.api.auth.limits import RateLimiter
from flowtuner.api.deps import Requires, get_caller
from flowtuner.api.errors import install_error_handlers
from flowtuner.api.routes import auth, configs, datasets, system, users
from flowtuner.api.settings import ServerSettings
from flowtuner.records.database import Database

ROUTERS: tuple[APIRouter, ...] = (system.router, auth.router, users.router, configs.router, datasets.router)
# Everything else asks who is there; a route that forgets to keeps the server from starting.
PUBLIC = frozenset({"/health", *(prefix + path for prefix in (auth.PREFIX, auth.OLD_PREFIX) for path in auth.PUBLIC)})


def create_app(settings: ServerSettings) -> FastAPI:
    """A server over these settings; its database is opened and brought up to date when it starts."""

    @contextlib.asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        database = Database(settings.database_url)
        database.migrate()
        app.state.database = database
        try:
            yield
        finally:
            database.close()

    app = FastAPI(title="Flowtuner", version=__version__, lifespan=live)
    app.state.settings = settings
    app.state.limiter = RateLimiter()
    install_error_handlers(app)
    for router in ROUTERS:
        # Flat, with whole paths: every route can be looked at, below and in the tests.
        app.router.routes.extend(router.routes)
    refuse_open_routes(app)
    return app


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


def permission_of(route: APIRoute | APIWebSocketRoute) -> str | None:
    """The permission a route requires, None if being known is enough."""
    return next((call.permission for call in _calls(route.dependant) if isinstance(call, Requires)), None)


def _asks(dependant: Dependant) -> bool:
    return any(call is get_caller for call in _calls(dependant))


def _calls(dependant: Dependant) -> Iterator[object]:
    for each in dependant.dependencies:
        yield each.call
        yield from _calls(each)
