"""A folder to work in, and the least that a run needs."""

import json

import pytest


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working directory with a config folder and an empty data set."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config" / "demo").mkdir(parents=True)
    (tmp_path / "pictures").mkdir()
    write_json(tmp_path / "data.json", [{"id": "pictures", "instance_data_dir": "pictures"}])
    return tmp_path


@pytest.fixture
def least():
    """The options without which nothing loads."""
    return {
        "model_family": "pixart_sigma",
        "model_type": "full",
        "output_dir": "output",
        "data_backend_config": "data.json",
        "max_train_steps": 10,
    }


def write_json(path, value):
    """Writes a JSON file, one key a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))
    return path
