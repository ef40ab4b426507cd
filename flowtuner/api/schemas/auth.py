"""Users, logins and keys on their way."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, EmailStr, Field

from flowtuner.api.auth.permissions import LEVELS, permissions_of
from flowtuner.api.schemas.incoming import Incoming
from flowtuner.records.tables import ApiKey, User


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not hold control characters")
    return text


Text = Annotated[str, AfterValidator(_printable)]
Username = Annotated[str, Field(min_length=3, max_length=50, pattern=r"^[A-Za-z0-9_-]+$")]
Password = Annotated[str, Field(min_length=8, max_length=1024)]


class NewUser(Incoming):
    """Somebody who wants an account."""

    email: EmailStr
    username: Username
    password: Password | None = None
    display_name: Annotated[Text, Field(max_length=200)] | None = None


class FirstAdmin(NewUser):
    """The first administrator, or somebody who registers."""

    password: Password
    setup_token: str | None = None


class NewMember(NewUser):
    """A user that an administrator makes."""

    is_admin: bool = False
    level_names: list[str] = Field(default_factory=lambda: ["researcher"])


class UserChange(Incoming):
    """What changes about a user; what is left out stays."""

    display_name: Annotated[Text, Field(max_length=200)] | None = None
    password: Password | None = None
    is_admin: bool | None = None
    is_active: bool | None = None
    level_names: list[str] | None = None


class Credentials(Incoming):
    """A login."""

    username: Annotated[str, Field(max_length=320)]
    password: Annotated[str, Field(max_length=1024)]
    remember_me: bool = False


class LevelView(BaseModel):
    """A level as it is shown."""

    id: int
    name: str
    priority: int


class UserView(BaseModel):
    """A user as it is shown."""

    id: int
    email: str
    username: str
    display_name: str | None
    avatar_url: str | None = None
    auth_provider: str = "local"
    is_active: bool
    is_admin: bool
    email_verified: bool = False
    created_at: datetime.datetime
    last_login_at: datetime.datetime | None
    levels: list[LevelView]
    permissions: list[str]

    @classmethod
    def of(cls, user: User) -> Self:
        """What is shown of a stored user."""
        levels = [LEVELS[name] for name in user.level_names if name in LEVELS]
        return cls(
            id=user.id,
            email=user.email,
            username=user.username,
            display_name=user.display_name,
            is_active=user.is_active,
            is_admin=user.is_admin,
            created_at=user.created_at,
            last_login_at=user.last_login_at,
            levels=[LevelView(id=one.id, name=one.name, priority=one.priority) for one in levels],
            permissions=sorted(permissions_of(user.level_names, user.is_admin)),
        )


class LoginReply(BaseModel):
    """What a login answers."""

    success: bool = True
    user: UserView
    message: str | None = None


class SetupStatus(BaseModel):
    """Whether the first administrator is still missing."""

    needs_setup: bool
    has_admin: bool
    user_count: int
    registration_enabled: bool


class NewKey(Incoming):
    """A key that is asked for."""

    name: Annotated[Text, Field(min_length=1, max_length=100)]
    expires_days: Annotated[int, Field(ge=1, le=365)] | None = None
    scoped_permissions: list[str] | None = None


class KeyView(BaseModel):
    """What is shown of a key."""

    id: int
    name: str
    key_prefix: str
    created_at: datetime.datetime
    last_used_at: datetime.datetime | None
    expires_at: datetime.datetime | None
    is_active: bool
    scoped_permissions: list[str] | None

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        """What is shown of a stored key."""
        same = ("id", "name", "created_at", "last_used_at", "expires_at", "is_active", "scoped_permissions")
        shown: dict[str, Any] = {name: getattr(key, name) for name in same}
        return cls(key_prefix=key.prefix, **shown)


class KeyReply(BaseModel):
    """A new key, shown this once."""

    key: str
    key_info: KeyView


class Success(BaseModel):
    """It was done."""

    success: bool = True
    message: str | None = None


class Identity(BaseModel):
    """Who the sender is taken for."""

    authenticated: bool
    user_id: int | None = None
    username: str | None = None
    is_admin: bool = False


class Registration(Incoming):
    """Whether anybody may make an account."""

    enabled: bool
