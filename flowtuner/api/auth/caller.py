"""Who sent a request: a key's owner, a browser's user, or the one person in front of a new server."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from fastapi.requests import HTTPConnection
from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from flowtuner.api.auth.permissions import EVERYTHING, LEVELS, allows, permissions_of
from flowtuner.records.tables import ApiKey, Login, User, now

COOKIE = "simpletuner_session"
KEY_PREFIX = "st_"
LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}
# A proxy on this machine speaks for somebody elsewhere.
FORWARDING = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


@dataclass(frozen=True)
class Caller:
    """One request's sender; `scope` narrows what a key may do below what its owner may."""

    user_id: int | None
    username: str
    granted: frozenset[str]
    scope: frozenset[str] | None = None
    key_id: int | None = None
    has_cookie: bool = False
    priority: int = 0

    @property
    def is_single_user(self) -> bool:
        """Whether nobody has an account yet and this is the person in front of the machine."""
        return self.user_id is None

    @property
    def sight(self) -> int | None:
        """Tells apart those who see different jobs: a user's number, or None for those who see all."""
        return None if self.may("job.view.all") else self.user_id

    def may(self, permission: str) -> bool:
        """Whether the sender has a permission, and its key too."""
        return allows(self.granted, permission) and (self.scope is None or allows(self.scope, permission))

    def owns(self, user_id: int | None) -> bool:
        """Whether something with this owner is the sender's own."""
        return self.is_single_user or (user_id is not None and user_id == self.user_id)


@dataclass(frozen=True)
class Credentials:
    """What a request brings to show who sends it, as it is stored: nobody else's hash is the same."""

    key: str | None
    cookie: str | None
    is_local: bool

    @classmethod
    def of(cls, connection: HTTPConnection) -> Self:
        """The credentials of a request."""
        key, cookie = _given_key(connection.headers), connection.cookies.get(COOKIE)
        return cls(digest(key) if key else None, digest(cookie) if cookie else None, is_local(connection))


def identify(given: Credentials, session: Session) -> Caller | None:
    """The sender: by key, else by cookie, else the single user; a key that is not valid counts as none."""
    if given.key:
        found = session.scalar(select(ApiKey).options(joinedload(ApiKey.user)).where(ApiKey.hash == given.key))
        if found and _is_valid(found):
            scope = None if found.scoped_permissions is None else frozenset(found.scoped_permissions)
            return _caller(found.user, scope=scope, key_id=found.id)
    if given.cookie:
        login = session.scalar(select(Login).options(joinedload(Login.user)).where(Login.hash == given.cookie))
        if login and login.expires_at > now() and login.user.is_active:
            return _caller(login.user, has_cookie=True)
    if given.is_local and not has_users(session):
        return Caller(None, "local", frozenset({EVERYTHING}), priority=100)
    return None


def digest(secret: str) -> str:
    """What is stored of a random secret: 256 bits of chance need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def has_users(session: Session) -> bool:
    """Whether the first administrator exists."""
    return bool(session.scalar(select(func.count()).select_from(User)))


def is_local(connection: HTTPConnection) -> bool:
    """Whether a request comes from this machine, for this machine, and not through a proxy or a foreign web page."""
    if any(name in connection.headers for name in FORWARDING):
        return False
    client = connection.client.host if connection.client else ""
    return _is_loopback(client) and (connection.url.hostname or "") in LOCAL_NAMES


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _given_key(headers: Mapping[str, str]) -> str | None:
    if key := headers.get("x-api-key"):
        return key
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _is_valid(key: ApiKey) -> bool:
    is_fresh = key.expires_at is None or key.expires_at > now()
    may_use_keys = allows(permissions_of(key.user.level_names, key.user.is_admin), "api.access")
    return key.is_active and key.user.is_active and is_fresh and may_use_keys


def _caller(
    user: User, scope: frozenset[str] | None = None, key_id: int | None = None, has_cookie: bool = False
) -> Caller:
    granted = permissions_of(user.level_names, user.is_admin)
    priority = max((LEVELS[name].priority for name in user.level_names if name in LEVELS), default=0)
    return Caller(user.id, user.username, granted, scope, key_id, has_cookie, priority)
