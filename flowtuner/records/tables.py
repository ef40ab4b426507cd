"""The tables; every change of one is a migration."""

from __future__ import annotations

import datetime
import secrets
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, ForeignKey, Identity, Index, Integer, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

# SQLite counts up by itself only in a column of exactly this type.
NUMBER = BigInteger().with_variant(Integer, "sqlite")


def now() -> datetime.datetime:
    """The present moment, with its zone."""
    return datetime.datetime.now(datetime.UTC)


class Moment(TypeDecorator[datetime.datetime]):
    """A moment that keeps its zone in SQLite too, which has none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:
        """To UTC on the way in."""
        return value.astimezone(datetime.UTC) if value else None

    def process_result_value(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:
        """From UTC on the way out."""
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=datetime.UTC)


class Table(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {  # noqa: RUF012  SQLAlchemy's own declaration
        dict[str, Any]: JSON,
        list[str]: JSON,
        list[int]: JSON,
        datetime.datetime: Moment,
    }


class User(Table):
    """Somebody who may log in."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(NUMBER, Identity(), primary_key=True)
    email: Mapped[str] = mapped_column(String(320), unique=True)
    username: Mapped[str] = mapped_column(String(50), unique=True)
    username_key: Mapped[str] = mapped_column(String(50), unique=True)  # lower case: nobody is Admin beside admin
    display_name: Mapped[str | None] = mapped_column(String(200))
    password_hash: Mapped[str | None] = mapped_column(Text)
    is_active: Mapped[bool] = mapped_column(default=True)
    is_admin: Mapped[bool] = mapped_column(default=False)
    level_names: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[datetime.datetime] = mapped_column(default=now)
    last_login_at: Mapped[datetime.datetime | None]

    keys: Mapped[list[ApiKey]] = relationship(back_populates="user", cascade="all, delete-orphan")
    logins: Mapped[list[Login]] = relationship(back_populates="user", cascade="all, delete-orphan")


class ApiKey(Table):
    """A key for programs; only its hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(NUMBER, Identity(), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    prefix: Mapped[str] = mapped_column(String(16))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    scoped_permissions: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    is_active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime.datetime] = mapped_column(default=now)
    last_used_at: Mapped[datetime.datetime | None]
    expires_at: Mapped[datetime.datetime | None]

    user: Mapped[User] = relationship(back_populates="keys")


class Login(Table):
    """A browser's session; only the cookie's hash is kept."""

    __tablename__ = "logins"

    id: Mapped[int] = mapped_column(NUMBER, Identity(), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime.datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime.datetime]

    user: Mapped[User] = relationship(back_populates="logins")


class Setting(Table):
    """One setting of the server that outlives it: the active environment, limits, registration."""

    __tablename__ = "settings"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[Any] = mapped_column(JSON)


def new_job_id() -> str:
    """Eight hex digits, as SimpleTuner's jobs have."""
    return secrets.token_hex(4)


class Job(Table):
    """One wish to train: queued, then a Prefect flow run, then history."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=new_job_id)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)
    config_name: Mapped[str | None] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(20), index=True, default="queued")
    detail: Mapped[str | None] = mapped_column(Text)
    target: Mapped[str] = mapped_column(String(20), default="local")
    priority: Mapped[int] = mapped_column(default=10)
    gpu_count: Mapped[int] = mapped_column(default=0)
    allocated_gpus: Mapped[list[int]] = mapped_column(default=list)
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What the flow run is started with: block names in the place of credentials."""
    resolved: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Every option with its value as it stood at the start, credentials left out."""
    output_dir: Mapped[str | None] = mapped_column(Text)
    flow_run_id: Mapped[str | None] = mapped_column(String(36), unique=True)
    attempt: Mapped[int] = mapped_column(default=0)
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    stages: Mapped[dict[str, Any]] = mapped_column(default=dict)
    last_event: Mapped[int] = mapped_column(default=0)
    """The number of its newest event."""
    last_source: Mapped[int] = mapped_column(default=0)
    """The number, in the run's own log, of the newest event taken over."""
    created_at: Mapped[datetime.datetime] = mapped_column(default=now)
    started_at: Mapped[datetime.datetime | None]
    completed_at: Mapped[datetime.datetime | None]

    user: Mapped[User | None] = relationship()


class JobEvent(Table):
    """One event of a job; its numbers have no gap."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    source: Mapped[int | None]
    """Its number in the run's own log; none for what the server noted itself."""
    attempt: Mapped[int] = mapped_column(default=0, server_default="0")
    """Which attempt of the job told it: another machine's log counts from one again."""
    type: Mapped[str] = mapped_column(String(50))
    time: Mapped[datetime.datetime]
    body: Mapped[dict[str, Any]]

    __table_args__ = (Index("one_of_each_source", "job_id", "attempt", "source", unique=True),)


class Idempotency(Table):
    """Which job a request with an Idempotency-Key made, so that its repetition makes no other."""

    __tablename__ = "idempotency"

    owner: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_hash: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime.datetime] = mapped_column(default=now)
