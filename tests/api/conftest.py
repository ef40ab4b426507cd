"""A server in this process, on a fresh database, and people who talk to it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from flowtuner.api.app import create_app
from flowtuner.api.settings import ServerSettings
from tests.fakes.postgres import a_database

PASSWORD = "your-secure-password"


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[ServerSettings]:
    with a_database(tmp_path / "home") as address:
        yield ServerSettings.from_environment(
            {"FLOWTUNER_HOME": str(tmp_path / "home"), "FLOWTUNER_DATABASE_URL": address},
            working_dir=tmp_path,
            config_dir=tmp_path / "config",
            datasets_dir=tmp_path / "datasets",
            output_dir=tmp_path / "output",
        )


@pytest.fixture
def app(settings: ServerSettings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def local(app: FastAPI) -> Iterator[TestClient]:
    """A client on the server's own machine, before anybody has an account."""
    with TestClient(app, base_url="http://localhost:8001", client=("127.0.0.1", 5000)) as client:
        yield client


@pytest.fixture
def remote(app: FastAPI, local: TestClient) -> TestClient:
    """A client on another machine, without credentials."""
    return TestClient(app, base_url="http://training.example.com", client=("192.0.2.7", 5000))


@pytest.fixture
def as_level(app: FastAPI, local: TestClient) -> Callable[[str], TestClient]:
    """Clients with a key of a fresh user of a level; the first call makes the administrator."""
    made: dict[str, TestClient] = {}

    def enter(level: str) -> TestClient:
        if level not in made:
            made[level] = _enter(app, local, level, made)
        return made[level]

    return enter


def _enter(app: FastAPI, local: TestClient, level: str, made: dict[str, TestClient]) -> TestClient:
    if "admin" not in made:
        admin = TestClient(app, base_url="http://localhost:8001", client=("127.0.0.1", 5001))
        wanted = {"email": "admin@example.com", "username": "admin", "password": PASSWORD}
        assert admin.post("/api/auth/setup/first-admin", json=wanted).status_code == 200
        made["admin"] = admin
    if level == "admin":
        return made["admin"]
    wanted = {
        "email": f"{level}@example.com",
        "username": level,
        "password": PASSWORD,
        "level_names": [level],
    }
    assert made["admin"].post("/api/users", json=wanted).status_code == 201
    client = TestClient(app, base_url="http://localhost:8001", client=("127.0.0.1", 5002))
    assert client.post("/api/auth/login", json={"username": level, "password": PASSWORD}).status_code == 200
    return client


@pytest.fixture
def address(app: FastAPI, local: TestClient) -> Iterator[str]:
    """The same server behind a real socket, for streams without end."""
    with serve(app) as address:
        yield address


@contextlib.contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    """Runs an application in a thread until the block ends."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, lifespan="off", log_level="warning", timeout_graceful_shutdown=1, ws="websockets-sansio"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
