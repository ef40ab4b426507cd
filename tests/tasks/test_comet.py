"""Comet offline, by its own library: every step once on one axis, whatever happened in between; nothing secret."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from flowtuner.engine.trackers import COMET, find_obstacle, wanted_trackers
from flowtuner.options import LoadedConfig
from tasks.curves import POSITION
from tests.tasks.lives import SECRET, told_to, train

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedConfig:
    monkeypatch.setenv("COMET_START_ONLINE", "0")
    monkeypatch.delenv("COMET_API_KEY", raising=False)
    return told_to(tmp_path, COMET)


def read(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], bytes]:
    """All messages and the facts of each life, as the library wrote them to be uploaded."""
    messages, lives, raw = [], [], b""
    for path in sorted(folder.glob("*.zip"), key=lambda path: path.stat().st_mtime_ns):
        with zipfile.ZipFile(path) as archive:
            raw += b"".join(archive.read(name) for name in archive.namelist())
            messages += [json.loads(line) for line in archive.read("messages.json").splitlines()]
            lives.append(json.loads(archive.read("experiment.json")))
    return messages, lives, raw


def test_a_resumed_run_goes_on_where_it_was(run: LoadedConfig) -> None:
    train(run, range(1, 6), shows=4)
    train(run, range(3, 8))
    folder = Path(run.config.output_dir) / "logs" / COMET
    messages, lives, raw = read(folder)
    metrics = [one["payload"]["metric"] for one in messages if one["type"] == "metric_msg"]
    losses = [(one["step"], one["metricValue"]) for one in metrics if one["metricName"] == "train_loss"]
    assert losses == [(step, pytest.approx(1 / step)) for step in range(1, 8)]
    (picture,) = [one["payload"] for one in messages if one["type"] == "file_upload"]
    assert picture["additional_params"]["step"] == 4
    known = json.loads((folder / POSITION).read_text())
    assert {(life["offline_id"], life["project_name"]) for life in lives} == {(known["id"], "shapes")}
    assert len(lives) == 2
    assert SECRET.encode() not in raw
    assert b"pixart_sigma" in raw


def test_without_a_key_it_is_not_told(run: LoadedConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_obstacle(COMET) is None
    assert wanted_trackers(run.config) == [COMET]
    monkeypatch.delenv("COMET_START_ONLINE")
    monkeypatch.setenv("COMET_CONFIG", str(tmp_path / "none"))
    obstacle = find_obstacle(COMET)
    assert obstacle is not None and "no key" in obstacle[0]
    assert wanted_trackers(run.config) == []
    monkeypatch.setenv("COMET_API_KEY", "k" * 20)
    assert find_obstacle(COMET) is None
