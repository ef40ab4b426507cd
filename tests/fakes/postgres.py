"""A PostgreSQL server of one's own, and empty databases in it."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

VARIABLE = "FLOWTUNER_TEST_POSTGRES"
"""Where the tests find a server; without it they use SQLite."""

MISSING = "PostgreSQL is needed for this test: apt-get install postgresql"


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A server on this machine until the block ends; answers with its address."""
    # PostgreSQL does not run as root: Debian's package brings a user for it.
    owner = "postgres" if os.geteuid() == 0 else getpass.getuser()
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    if os.geteuid() == 0:
        shutil.chown(folder, owner)
    data = folder / "data"
    try:
        _run(owner, find_program("initdb"), "-D", str(data), "-U", "tests", "--auth=trust", "--no-sync")
        options = ["-c", "fsync=off", "-c", f"unix_socket_directories={folder}", "-c", "listen_addresses=127.0.0.1"]
        command = [find_program("postgres"), "-D", str(data), "-p", str(port), *options]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **_as(owner))
        try:
            address = f"postgresql://tests@127.0.0.1:{port}/postgres"
            _await(address, server)
            yield address
        finally:
            server.terminate()
            server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def empty_database(server: str) -> Iterator[str]:
    """A database that nobody used before; gone after the block."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield f"{server.rpartition('/')[0]}/{name}"
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def a_database(folder: Path) -> Iterator[str]:
    """The address of an empty database: SQLite, or PostgreSQL where a server is named."""
    server = os.environ.get(VARIABLE)
    if server is None:
        yield f"sqlite:///{folder / 'flowtuner.db'}"
        return
    with empty_database(server) as address:
        yield address


def find_program(name: str) -> str:
    """One of PostgreSQL's programs, wherever Debian put it."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, places)]))
    assert found, MISSING
    return found


def _run(owner: str, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **_as(owner))
    assert done.returncode == 0, done.stderr


def _as(owner: str) -> dict[str, str]:
    return {"user": owner} if os.geteuid() == 0 else {}


def _await(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(make_conninfo(address, connect_timeout=2)).close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None and time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.1)
