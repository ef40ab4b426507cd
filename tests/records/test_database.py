"""The database: its tables match its migrations, and its writers take turns."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select, text

from flowtuner.records.database import Database, DatabaseError
from flowtuner.records.tables import Setting, Table
from tests.fakes.postgres import a_database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with a_database(tmp_path / "a") as address:
        database = Database(address)
        database.migrate()
        yield database
        database.close()


def test_migrations_make_the_tables_as_they_are_declared(database: Database) -> None:
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
    database.migrate()  # and again changes nothing


def test_many_writers_lose_nothing(database: Database) -> None:
    def count_up() -> None:
        for _ in range(10):
            with database.writing() as session:
                setting = session.get(Setting, "count")
                session.merge(Setting(name="count", value=(setting.value if setting else 0) + 1))

    threads = [threading.Thread(target=count_up) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as session:
        assert session.scalar(select(Setting.value)) == 50
        assert session.scalar(select(func.count()).select_from(Setting)) == 1


def test_a_newer_database_is_refused(database: Database) -> None:
    with database.engine.execution_options(writes=True).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="newer Flowtuner"):
        database.migrate()
