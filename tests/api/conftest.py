"""A server in this process, on a fresh database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from flowtuner.api.app import create_app
from flowtuner.api.settings import ServerSettings


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    environ = {"FLOWTUNER_HOME": str(tmp_path / "home")}
    return ServerSettings.from_environment(
        environ,
        working_dir=tmp_path,
        config_dir=tmp_path / "config",
        datasets_dir=tmp_path / "datasets",
        output_dir=tmp_path / "output",
    )


@pytest.fixture
def local(settings: ServerSettings) -> Iterator[TestClient]:
    """A client on the server's own machine, before anybody has an account."""
    with TestClient(create_app(settings), base_url="http://localhost:8001", client=("127.0.0.1", 5000)) as client:
        yield client
