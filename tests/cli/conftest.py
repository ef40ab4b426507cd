"""A configuration file for the tiny run, and a home of its own for every test."""

import json
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """Nothing a test does may reach the user's own home or configuration."""
    folder = tmp_path / "home"
    monkeypatch.setenv("FLOWTUNER_HOME", str(folder))
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "ENV", "CONFIG_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def config_file(tmp_path, tiny_run) -> Path:
    """The tiny run as a JSON file."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(tiny_run))
    return path
