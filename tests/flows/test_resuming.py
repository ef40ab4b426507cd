"""A run on an empty disk goes on from what is published, by itself or by URI; and not from somebody else's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from blocks.folder import FolderDestination
from flows.train import train
from flowtuner.engine.events import METRIC, NOTIFICATION, read_events
from flowtuner.errors import ConfigError

pytestmark = pytest.mark.usefixtures("prefect_api")


def steps_of(output_dir: Path) -> list[int]:
    return [event.data["step"] for event in read_events(output_dir / "logs/events.jsonl") if event.type == METRIC]


def said_in(output_dir: Path) -> str:
    log = read_events(output_dir / "logs/events.jsonl")
    return "\n".join(event.data["message"] for event in log if event.type == NOTIFICATION)


def test_a_lost_disk_loses_nothing_that_was_published(options: dict[str, Any], share: Path, tmp_path: Path) -> None:
    train(config=options | {"max_train_steps": 4})
    shutil.rmtree(options["output_dir"])
    result = train(config=options)
    assert isinstance(result, dict)
    output_dir = Path(options["output_dir"])
    assert steps_of(output_dir) == [5, 6, 7, 8]
    assert "going on from step 4, fetched from file:///" in said_in(output_dir)
    assert "resume_from_published=false" in said_in(output_dir)
    assert {row["what"] for row in result["published"]} == {"checkpoint-4", "checkpoint-8", "release"}

    # A run of another name goes on from it by a URI, whose credentials a stored block has.
    FolderDestination(path=share).save("the-share", overwrite=True)
    other = options | {"output_dir": str(tmp_path / "other"), "max_train_steps": 10, "publishing_config": []}
    train(config=other | {"resume_from_checkpoint": f"{share.as_uri()}/my%20run/checkpoint-4"})
    assert steps_of(tmp_path / "other") == [5, 6, 7, 8, 9, 10]
    assert (tmp_path / "other/checkpoint-4/checkpoint_manifest.json").is_file()


def test_a_whole_output_folder_goes_where_it_is_asked_for(options: dict[str, Any], share: Path) -> None:
    options["publishing_config"][0]["content"] = "output_dir"
    result = train(config=options)
    assert isinstance(result, dict)
    assert {row["what"] for row in result["published"]} == {"checkpoint-4", "checkpoint-8", "output_dir"}
    assert all(row["verified"] for row in result["published"])
    there = share / "my run"
    assert (there / "validation_images/step_8.png").is_file()
    assert (there / "pipeline/transformer/weights.safetensors").read_text() == "weights of step 8"
    assert (there / "logs/run.json").is_file()


def test_a_uri_that_leads_nowhere_starts_nothing(options: dict[str, Any], share: Path) -> None:
    with pytest.raises(ConfigError, match="there is no checkpoint-9 of my run"):
        train(config=options | {"resume_from_checkpoint": f"{share.as_uri()}/my%20run/checkpoint-9"})
    assert not (Path(options["output_dir"]) / "logs/events.jsonl").exists()
