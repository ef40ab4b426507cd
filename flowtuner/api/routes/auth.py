"""Set-up, login and keys, under /api/auth and under the tutorial's /api/cloud/auth."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import delete, func, select

from flowtuner.api.auth import accounts
from flowtuner.api.auth.caller import COOKIE, Caller, digest, has_users, is_local
from flowtuner.api.auth.limits import Limited
from flowtuner.api.auth.permissions import LEVELS, PERMISSIONS
from flowtuner.api.deps import CallerDep, DatabaseDep, OptionalCaller, Requires, SettingsDep
from flowtuner.api.errors import ApiError, refusals
from flowtuner.api.schemas.auth import (
    Credentials,
    FirstAdmin,
    Identity,
    KeyReply,
    KeyView,
    LoginReply,
    NewKey,
    Registration,
    SetupStatus,
    Success,
    UserView,
)
from flowtuner.records.tables import ApiKey, Login, Setting, User

PREFIX, OLD_PREFIX = "/api/auth", "/api/cloud/auth"
PUBLIC = ("/setup/status", "/setup/first-admin", "/login", "/logout", "/check", "/register")
router = APIRouter(tags=["auth"])
Route = Callable[..., Any]
KeyOwner = Annotated[Caller, Depends(Requires("api.keys.own"))]


def both(method: str, path: str, *statuses: int, **more: Any) -> Callable[[Route], Route]:
    """A route under both prefixes; the old one is not in the documentation."""

    def add(route: Route) -> Route:
        responses = refusals(*statuses)
        router.add_api_route(PREFIX + path, route, methods=[method], responses=responses, **more)
        router.add_api_route(OLD_PREFIX + path, route, methods=[method], include_in_schema=False, **more)
        return route

    return add


@both("GET", "/setup/status")
def read_setup_status(database: DatabaseDep) -> SetupStatus:
    """Says whether the first administrator is still missing."""
    with database.reading() as session:
        count = session.scalar(select(func.count()).select_from(User)) or 0
        admins = session.scalar(select(func.count()).select_from(User).where(User.is_admin)) or 0
        return SetupStatus(
            needs_setup=not count,
            has_admin=bool(admins),
            user_count=count,
            registration_enabled=accounts.is_registration_open(session),
        )


@both("POST", "/setup/first-admin", 400, 401, 409, 429, dependencies=[Depends(Limited("register", 5))])
def create_first_admin(
    wanted: FirstAdmin, request: Request, response: Response, database: DatabaseDep, settings: SettingsDep
) -> LoginReply:
    """Makes the first administrator; from elsewhere than this machine only with the set-up token."""
    with database.reading() as session:
        _refuse_second(has_users(session))
    if not is_local(request):
        given = request.headers.get("x-setup-token") or wanted.setup_token or ""
        if not secrets.compare_digest(given.encode(), settings.read_setup_token().encode()):
            raise ApiError(
                401,
                "setup_token_required",
                "From another machine the first administrator needs the set-up token that the server printed at its "
                "start: send it as X-Setup-Token",
            )
    with database.writing() as session:
        _refuse_second(has_users(session))
        user = accounts.create_user(session, wanted, is_admin=True, levels=["admin"])
        _set_cookie(response, settings.is_tls, *accounts.open_login(session, user, is_long=True))
        return LoginReply(user=UserView.of(user), message="Admin account created successfully")


@both("POST", "/login", 401, 429, dependencies=[Depends(Limited("login", 15))])
def log_in(
    wanted: Credentials, request: Request, response: Response, database: DatabaseDep, settings: SettingsDep
) -> LoginReply:
    """Opens a browser session."""
    request.app.state.limiter.count("login of", wanted.username.lower(), 15)
    with database.reading() as session:  # checking a password takes long, on purpose: nobody has to wait for it
        user = accounts.log_in(session, wanted.username, wanted.password)
    with database.writing() as session:
        _set_cookie(response, settings.is_tls, *accounts.open_login(session, user, is_long=wanted.remember_me))
        return LoginReply(user=UserView.of(user))


@both("POST", "/logout")
def log_out(request: Request, response: Response, database: DatabaseDep) -> Success:
    """Ends the browser session."""
    if cookie := request.cookies.get(COOKIE):
        with database.writing() as session:
            session.execute(delete(Login).where(Login.hash == digest(cookie)))
    response.delete_cookie(COOKIE)
    return Success()


@both("POST", "/register", 400, 403, 429, dependencies=[Depends(Limited("register", 5))])
def register(wanted: FirstAdmin, response: Response, database: DatabaseDep, settings: SettingsDep) -> LoginReply:
    """Makes an account for oneself, where that is allowed."""
    with database.writing() as session:
        if not accounts.is_registration_open(session):
            raise ApiError(403, "registration_closed", "Public registration is disabled. Ask an administrator.")
        user = accounts.create_user(session, wanted, levels=[accounts.DEFAULT_LEVEL])
        _set_cookie(response, settings.is_tls, *accounts.open_login(session, user, is_long=False))
        return LoginReply(user=UserView.of(user))


@both("PUT", "/registration", 401, 403, dependencies=[Depends(Requires("admin.users"))])
def set_registration(wanted: Registration, database: DatabaseDep) -> Registration:
    """Lets anybody make an account, or nobody."""
    with database.writing() as session:
        session.merge(Setting(name=accounts.REGISTRATION, value=wanted.enabled))
    return wanted


@both("GET", "/me", 401)
def read_me(caller: CallerDep, database: DatabaseDep) -> dict[str, Any]:
    """The sender."""
    with database.reading() as session:
        if caller.user_id is None:
            return {"id": None, "username": caller.username, "is_admin": True, "permissions": ["*"], "levels": []}
        return UserView.of(accounts.find_user(session, caller.user_id)).model_dump(mode="json")


@both("GET", "/check")
def check(caller: OptionalCaller) -> Identity:
    """Whether the sender is known."""
    if caller is None:
        return Identity(authenticated=False)
    return Identity(
        authenticated=True, user_id=caller.user_id, username=caller.username, is_admin="*" in caller.granted
    )


@both("GET", "/api-keys", 401, 403)
def list_keys(caller: KeyOwner, database: DatabaseDep) -> dict[str, list[KeyView]]:
    """The sender's keys."""
    with database.reading() as session:
        keys = session.scalars(select(ApiKey).where(ApiKey.user_id == caller.user_id).order_by(ApiKey.id))
        return {"keys": [KeyView.of(key) for key in keys]}


@both("POST", "/api-keys", 400, 401, 403, 429, dependencies=[Depends(Limited("api-keys", 10))])
def create_key(wanted: NewKey, caller: KeyOwner, database: DatabaseDep) -> KeyReply:
    """Makes a key for programs."""
    if caller.user_id is None:
        raise ApiError(400, "needs_an_account", "A key belongs to a user: create the first administrator")
    with database.writing() as session:
        key, stored = accounts.create_key(session, caller, wanted.name, wanted.expires_days, wanted.scoped_permissions)
        return KeyReply(key=key, key_info=KeyView.of(stored))


@both("DELETE", "/api-keys/{key_id}", 401, 403, 404)
def delete_key(key_id: int, caller: KeyOwner, database: DatabaseDep) -> Success:
    """Takes a key back."""
    with database.writing() as session:
        accounts.delete_key(session, caller, key_id)
    return Success()


@both("GET", "/levels", 401, 403, dependencies=[Depends(Requires("admin.levels"))])
def list_levels() -> dict[str, Any]:
    """The levels of users and what each may do."""
    return {
        "levels": [
            {
                "id": level.id,
                "name": level.name,
                "priority": level.priority,
                "description": level.description,
                "permissions": sorted(level.permissions),
            }
            for level in LEVELS.values()
        ]
    }


@both("GET", "/permissions", 401, 403, dependencies=[Depends(Requires("admin.levels"))])
def list_permissions() -> dict[str, Any]:
    """All permissions there are."""
    return {"permissions": [{"name": name, "description": text} for name, text in PERMISSIONS.items()]}


def _refuse_second(is_done: bool) -> None:
    if is_done:
        raise ApiError(409, "setup_completed", "Setup already completed. Use normal registration.")


def _set_cookie(response: Response, is_tls: bool, value: str, lasting: Any) -> None:
    response.set_cookie(
        COOKIE, value, max_age=int(lasting.total_seconds()), httponly=True, samesite="lax", secure=is_tls, path="/"
    )
