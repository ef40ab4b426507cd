"""Users, their sessions and their keys: what the routes of `auth` and `users` do."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Sequence

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from flowtuner.api.auth.caller import KEY_PREFIX, Caller, digest
from flowtuner.api.auth.passwords import hash_password, verify_password
from flowtuner.api.auth.permissions import LEVELS, PERMISSIONS, allows
from flowtuner.api.errors import ApiError, not_found
from flowtuner.api.schemas.auth import NewUser, UserChange
from flowtuner.records.tables import ApiKey, Login, Setting, User, now

KEY_BYTES = 24
PREFIX_LENGTH = 11
DAY = datetime.timedelta(days=1)
LONG = datetime.timedelta(days=30)
REGISTRATION = "registration_enabled"
DEFAULT_LEVEL = "researcher"
BIGGEST = 1 << 62  # what a column of numbers holds


def create_user(session: Session, wanted: NewUser, *, is_admin: bool = False, levels: Sequence[str]) -> User:
    """A new user; 400 for an unknown level or a name or address that is taken."""
    check_levels(levels)
    key = wanted.username.lower()
    taken = select(User.id).where(or_(func.lower(User.email) == wanted.email.lower(), User.username_key == key))
    if session.scalar(taken) is not None:
        raise ApiError(400, "user_exists", "A user with this email or username already exists")
    user = User(
        email=wanted.email,
        username=wanted.username,
        username_key=key,
        display_name=wanted.display_name,
        password_hash=hash_password(wanted.password) if wanted.password else None,
        is_admin=is_admin,
        level_names=list(levels),
    )
    session.add(user)
    try:
        session.flush()
    except IntegrityError as error:  # somebody else was a moment faster
        raise ApiError(400, "user_exists", "A user with this email or username already exists") from error
    return user


def check_levels(names: Sequence[str]) -> None:
    """400 for a level that there is not."""
    unknown = [name for name in names if name not in LEVELS]
    if unknown:
        known = ", ".join(LEVELS)
        raise ApiError(400, "unknown_level", f"Unknown level: {', '.join(unknown)}. Levels are: {known}")


def log_in(session: Session, name: str, password: str) -> User:
    """The user with this name or address; 401 if the password is another."""
    wanted = name.strip().lower()
    user = session.scalar(select(User).where(or_(User.username_key == wanted, func.lower(User.email) == wanted)))
    is_right = verify_password(password, user.password_hash if user else None)
    if user is None or not is_right or not user.is_active:
        raise ApiError(401, "wrong_credentials", "Invalid username or password", headers={"WWW-Authenticate": "Bearer"})
    return user


def open_login(session: Session, user: User, *, is_long: bool) -> tuple[str, datetime.timedelta]:
    """A new browser session: the cookie's value and how long it lasts."""
    session.execute(delete(Login).where(Login.expires_at < now()))
    cookie, lasting = secrets.token_urlsafe(32), LONG if is_long else DAY
    session.add(Login(user_id=user.id, hash=digest(cookie), expires_at=now() + lasting))
    session.execute(update(User).where(User.id == user.id).values(last_login_at=now()))
    return cookie, lasting


def create_key(
    session: Session, caller: Caller, name: str, days: int | None, scope: Sequence[str] | None
) -> tuple[str, ApiKey]:
    """A new key, which is shown this once, and what is stored of it."""
    beyond = [wanted for wanted in scope or () if not _can_grant(caller, wanted)]
    if beyond:
        raise ApiError(400, "scope_too_wide", f"A key cannot have what you have not: {', '.join(beyond)}")
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    stored = ApiKey(
        user_id=caller.user_id,
        name=name,
        prefix=key[:PREFIX_LENGTH],
        hash=digest(key),
        scoped_permissions=_narrow(caller, scope),
        expires_at=now() + days * DAY if days else None,
    )
    session.add(stored)
    session.flush()
    return key, stored


def delete_key(session: Session, caller: Caller, key_id: int) -> None:
    """Takes a key back; 404 for one that is somebody else's."""
    key = session.get(ApiKey, key_id) if abs(key_id) < BIGGEST else None
    if key is None or key.user_id != caller.user_id:
        raise not_found("API key", key_id)
    session.delete(key)


def change_user(session: Session, user_id: int, change: UserChange) -> User:
    """Changes what is given; the last administrator stays one."""
    user = find_user(session, user_id)
    if change.level_names is not None:
        check_levels(change.level_names)
        user.level_names = list(change.level_names)
    for name in ("display_name", "is_admin", "is_active"):
        if getattr(change, name) is not None:
            setattr(user, name, getattr(change, name))
    if change.password:
        user.password_hash = hash_password(change.password)
    if change.password or not user.is_active:
        session.execute(delete(Login).where(Login.user_id == user.id))
    session.flush()
    _keep_an_admin(session)
    return user


def delete_user(session: Session, user_id: int) -> None:
    """Removes a user with sessions and keys; jobs stay."""
    session.delete(find_user(session, user_id))
    session.flush()
    _keep_an_admin(session)


def find_user(session: Session, user_id: int) -> User:
    """A user by number, or 404."""
    user = session.get(User, user_id) if abs(user_id) < BIGGEST else None
    if user is None:
        raise not_found("User", user_id)
    return user


def is_registration_open(session: Session) -> bool:
    """Whether anybody may make an account."""
    setting = session.get(Setting, REGISTRATION)
    return bool(setting and setting.value)


def _keep_an_admin(session: Session) -> None:
    active = session.scalars(select(User).where(User.is_active))
    if not any(user.is_admin or "admin" in user.level_names for user in active):
        raise ApiError(400, "last_admin", "This is the last administrator: make another one first")


def _can_grant(caller: Caller, wanted: str) -> bool:
    names = [name for name in PERMISSIONS if allows([wanted], name)]
    return bool(names) and all(caller.may(name) for name in names)


def _narrow(caller: Caller, scope: Sequence[str] | None) -> list[str] | None:
    # A key made with a scoped key is no wider than that one.
    if scope is None:
        return sorted(caller.scope) if caller.scope is not None else None
    return sorted(set(scope))
