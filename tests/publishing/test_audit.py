"""What stands at destinations, listed, proved, and mended without sending what is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.folder import FolderDestination
from flowtuner.publishing.audit import list_holdings, verify_holdings
from flowtuner.publishing.snapshot import Snapshot, checkpoint_unit, freeze


@pytest.fixture
def destination(tmp_path: Path) -> FolderDestination:
    (tmp_path / "share").mkdir()
    return FolderDestination(path=tmp_path / "share", name="share")


def publish(destination: FolderDestination, tmp_path: Path, step: int) -> Snapshot:
    folder = tmp_path / f"run/checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "weights").write_text(f"weights {step}")
    (folder / "optimizer.bin").write_text("moments")
    snapshot = freeze(checkpoint_unit(folder, "r", step, {})).seal()
    destination.publish(snapshot, lambda done, total: None)
    return snapshot


def test_what_is_there_is_listed_and_what_is_missing_told(tmp_path: Path, destination: FolderDestination) -> None:
    for step in (2, 10):
        publish(destination, tmp_path, step)
    gone = FolderDestination(path=tmp_path / "not mounted", name="gone")
    holdings = list_holdings([destination, gone], "run")
    assert [(each.destination, each.name, each.files) for each in holdings] == [
        ("share", "checkpoint-2", 2),
        ("share", "checkpoint-10", 2),
        ("gone", "", 0),
    ]
    assert "still mounted" in holdings[2].faults[0]
    (tmp_path / "share/run/checkpoint-2/weights").unlink()
    verified = verify_holdings([destination], "run", ["checkpoint-10", "checkpoint-12"])
    assert {each.name: each.is_whole for each in verified} == {
        "checkpoint-2": False,
        "checkpoint-10": True,
        "checkpoint-12": False,
    }


def test_only_reading_every_byte_finds_other_bytes_and_mending_sends_one_file(
    tmp_path: Path, destination: FolderDestination
) -> None:
    snapshot = publish(destination, tmp_path, 2)
    (tmp_path / "share/run/checkpoint-2/weights").write_text("WEIGHTS 2")
    assert all(each.is_whole for each in verify_holdings([destination], "run"))
    [wrong] = verify_holdings([destination], "run", deep=True)
    assert "weights has other bytes" in wrong.faults[0]
    assert destination.clear_damage(snapshot.manifest) == ["run/checkpoint-2/weights had other bytes"]
    assert destination.publish(snapshot, lambda done, total: None).sent_files == 1
    assert all(each.is_whole for each in verify_holdings([destination], "run", deep=True))
