"""What routes ask for: the database, the settings, the sender, a permission."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import Depends
from fastapi.concurrency import run_in_threadpool
from fastapi.requests import HTTPConnection

from flowtuner.api.auth.caller import Caller, Credentials, identify
from flowtuner.api.errors import ApiError
from flowtuner.api.memory import Memory
from flowtuner.api.settings import ServerSettings
from flowtuner.records.database import Database

UNKNOWN = "Authentication required: send an API key as X-API-Key, or log in at /api/auth/login"
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


async def get_database(connection: HTTPConnection) -> Database:
    """The server's database; routes open sessions themselves, as short as they can."""
    database: Database = connection.app.state.database
    return database


async def get_settings(connection: HTTPConnection) -> ServerSettings:
    """The server's settings."""
    settings: ServerSettings = connection.app.state.settings
    return settings


DatabaseDep = Annotated[Database, Depends(get_database)]
SettingsDep = Annotated[ServerSettings, Depends(get_settings)]


async def get_memory(connection: HTTPConnection) -> Memory:
    """What was found out a moment ago."""
    memory: Memory = connection.app.state.memory
    return memory


MemoryDep = Annotated[Memory, Depends(get_memory)]
# Dependencies that wait for nothing are coroutines: a thread for each would cost more than all that they do.


async def find_caller(connection: HTTPConnection, database: DatabaseDep, memory: MemoryDep) -> Caller | None:
    """The sender, or None where nobody is known; those who are not may only ask so often."""
    given = Credentials.of(connection)
    caller = await memory.ask(given, partial(_look_up, given, database))
    if caller is None:
        settings: ServerSettings = connection.app.state.settings
        who = connection.client.host if connection.client else ""
        limits = settings.rate_limit_calls, settings.rate_limit_period_s
        connection.app.state.limiter.count("anonymous", who, *limits)
    elif caller.key_id is not None and connection.app.state.key_uses.is_news(caller.key_id):
        await run_in_threadpool(connection.app.state.key_uses.write, database, caller.key_id)
    return caller


def _look_up(given: Credentials, database: Database) -> Caller | None:
    with database.reading() as session:
        return identify(given, session)


async def get_caller(caller: Annotated[Caller | None, Depends(find_caller)], connection: HTTPConnection) -> Caller:
    """The sender; 401 where nobody is known, 403 for a write that a foreign page made with our cookie."""
    if caller is None:
        raise ApiError(401, "authentication_required", UNKNOWN, headers={"WWW-Authenticate": "Bearer"})
    if (caller.has_cookie or caller.is_single_user) and is_foreign_write(connection):
        raise ApiError(403, "foreign_origin", "This request came from another site's page, which may not act for you")
    return caller


OptionalCaller = Annotated[Caller | None, Depends(find_caller)]
CallerDep = Annotated[Caller, Depends(get_caller)]


class Requires:
    """A dependency: the sender has this permission."""

    def __init__(self, permission: str) -> None:
        self.permission = permission

    async def __call__(self, caller: CallerDep) -> Caller:
        """The sender, or 403."""
        if not caller.may(self.permission):
            raise ApiError(403, "permission_denied", f"Permission denied: {self.permission}")
        return caller


def is_foreign_write(connection: HTTPConnection) -> bool:
    """Whether a page of another site made a browser send this; browsers say so, programs send neither header."""
    method = connection.scope.get("method", "GET")
    if method in SAFE_METHODS and connection.scope["type"] == "http":
        return False
    origin = connection.headers.get("origin")
    if origin is not None:
        if origin in connection.app.state.settings.allowed_origins:
            return False
        return origin.partition("://")[2] != connection.headers.get("host", "")
    return connection.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
