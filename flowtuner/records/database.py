"""One database: its migrations and its sessions."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from flowtuner.errors import Terminal

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_S = 30.0
MIGRATION_LOCK, WRITERS_LOCK = 7120451, 7120452  # any numbers, the same for all servers of one PostgreSQL database


class DatabaseError(Terminal):
    """The database cannot be opened, or is newer than this program."""


class Database:
    """Opens a database by its URL and brings its tables up to date."""

    def __init__(self, url: str) -> None:
        self.url = make_url(_with_driver(url))
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.generation = 0
        """Counts what was written through this object: what was read before the last count may be out of date."""
        self.engine = _open(self)
        self._readers = sessionmaker(self.engine, expire_on_commit=False)
        self._writers = sessionmaker(self.engine.execution_options(writes=True), expire_on_commit=False)

    def migrate(self) -> None:
        """Brings the tables to this program's version; several servers may try at once."""
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        try:
            with self._migrating(), self.engine.execution_options(writes=True).begin() as connection:
                if not self.is_sqlite:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except OperationalError as error:
            raise DatabaseError(f"the database {self.name} cannot be opened: {error.orig}") from error
        except CommandError as error:
            raise DatabaseError(
                f"the database {self.name} was written by a newer Flowtuner ({error}): update this one, "
                "or set FLOWTUNER_DATABASE_URL to another database"
            ) from error

    @property
    def name(self) -> str:
        """The URL without its password, for messages."""
        return self.url.render_as_string(hide_password=True)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for reading."""
        with self._readers.begin() as session:
            yield session

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """A session whose work is committed at the end, or undone if an exception passes; keep it short.

        Writers take turns, whichever server they are in, so that what one read is still so when it writes: SQLite
        knows no other way, and PostgreSQL is asked for the same.
        """
        with self._writers.begin() as session:
            if not self.is_sqlite:
                session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": WRITERS_LOCK})
            yield session
        self.generation += 1

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()

    @contextlib.contextmanager
    def _migrating(self) -> Iterator[None]:
        if not self.is_sqlite or not self.url.database or self.url.database == ":memory:":
            yield
            return
        path = Path(self.url.database)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(path.name + ".migration").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _with_driver(url: str) -> str:
    # psycopg is what the `postgres` extra installs.
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if separator and scheme in ("postgres", "postgresql") else url


def _open(database: Database) -> Engine:
    if not database.is_sqlite:
        return create_engine(database.url, pool_pre_ping=True, pool_size=10, max_overflow=20)
    engine = create_engine(database.url, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        # SQLAlchemy begins transactions itself below: the driver's own habit lets two readers become writers and fail.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        is_writer = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")

    return engine
