"""W&B offline, by its own library: every step once on one axis, whatever happened in between; nothing secret."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flowtuner.engine.events import METRIC, VALIDATION, EventLog
from flowtuner.options import LoadedConfig, TrainingConfig
from tasks.curves import POSITION
from tasks.trackers import tracked

BLOCK = 1 << 15

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedConfig:
    monkeypatch.setenv("WANDB_MODE", "offline")
    return LoadedConfig(
        TrainingConfig(
            model_family="pixart_sigma",
            model_type="full",
            optimizer="torch-adamw",
            output_dir=tmp_path,
            data_backend_config=tmp_path / "data.json",
            report_to="wandb",
            tracker_project_name="shapes",
            tracker_run_name="first",
            publishing_config=[{"provider": "s3", "bucket": "b", "secret_key": "canary-5167"}],
        )
    )


def train(run: LoadedConfig, steps: range, *, shows: int = 0) -> None:
    """One process life."""
    folder = Path(run.config.output_dir)
    with EventLog(folder / "logs" / "events.jsonl", "run") as events, tracked(events, run):
        for step in steps:
            events.append(METRIC, {"step": step, "loss": 1 / step, "learning_rate": 1e-4, "grad_norm": None})
            if step == shows:
                picture = folder / f"step_{step}_circle_8x6_0.png"
                Image.new("RGB", (8, 6), "red").save(picture)
                events.append(VALIDATION, {"step": step, "images": [str(picture)], "videos": []})


def read(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], bytes]:
    """All rows of history and the facts of each life, as the library wrote them to be synchronised."""
    from wandb.proto import wandb_internal_pb2

    rows, lives, raw = [], [], b""
    for file in sorted(folder.rglob("*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        raw += file.read_bytes()
        for data in _records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items})
            elif record.WhichOneof("record_type") == "run":
                lives.append({"id": record.run.run_id, "project": record.run.project, "name": record.run.display_name})
    return rows, lives, raw


def _records(data: bytes) -> Iterator[bytes]:
    """The library's files are LevelDB logs behind seven bytes: blocks of 32 KiB, of chunks with a head of seven."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        rest = BLOCK - place % BLOCK
        if rest < 7:
            place += rest
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def test_a_resumed_run_goes_on_where_it_was(run: LoadedConfig) -> None:
    train(run, range(1, 6), shows=4)
    train(run, range(3, 8))
    folder = Path(run.config.output_dir) / "logs" / "wandb"
    rows, lives, raw = read(folder)
    losses = [(row["step"], row["train_loss"]) for row in rows if "train_loss" in row]
    assert losses == [(step, 1 / step) for step in range(1, 8)]
    (pictures,) = [row for row in rows if "validation/images" in row or any("validation" in name for name in row)]
    assert pictures["step"] == 4
    assert len(list(folder.rglob("*.png"))) == 1
    known = json.loads((folder / POSITION).read_text())
    assert {tuple(life.values()) for life in lives} == {(known["id"], "shapes", "first")}
    assert b"canary-5167" not in raw
    assert b"pixart_sigma" in raw


def test_a_tracker_that_cannot_begin_costs_the_curves_not_the_run(run: LoadedConfig) -> None:
    logs = Path(run.config.output_dir) / "logs"
    logs.mkdir()
    (logs / "wandb").write_text("in the way")
    train(run, range(1, 2))
    assert "wandb is not up to date" in (logs / "events.jsonl").read_text()
