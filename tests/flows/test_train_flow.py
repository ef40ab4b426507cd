"""The training flow with a counting engine: what it returns, what its page shows, and how it ends when things fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact, FlowRun

from flows.cache import cache
from flows.publish import publish
from flows.train import train
from flowtuner import durable
from flowtuner.engine.events import METRIC, PUBLISH, STATUS, read_events
from flowtuner.errors import ConfigError, PublishError

pytestmark = pytest.mark.usefixtures("prefect_api")


def read_run(run_id: str) -> tuple[FlowRun, dict[str, Artifact]]:
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)  # type: ignore[arg-type]
        wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        artifacts = client.read_artifacts(artifact_filter=wanted)
    return run, {str(artifact.key): artifact for artifact in artifacts}


def steps_in(folder: Path) -> str:
    return (folder / "transformer/weights.safetensors").read_text()


def test_a_run_is_trained_published_verified_and_shown(options: dict[str, Any], share: Path) -> None:
    result = train(config=options | {"report_to": "tensorboard"})
    assert isinstance(result, dict)
    assert [(row["what"], row["verified"]) for row in result["published"]] == [
        ("checkpoint-4", True),
        ("checkpoint-8", True),
        ("release", True),
    ]
    assert (result["step"], result["worst_case_loss_steps"]) == (8, 4)
    assert steps_in(share / "my run/checkpoint-4") == "weights of step 4"
    assert steps_in(share / "my run/pipeline") == "weights of step 8"
    output_dir = Path(result["output_dir"])
    assert durable.read_json(output_dir / "logs/report.json") == result
    assert not (output_dir / ".spool").exists()
    assert list(output_dir.glob("logs/tensorboard/events.out.tfevents.*"))

    run, artifacts = read_run(result["run_id"])
    assert run.name == "my run (pixart_sigma full)"
    assert "model:pixart_sigma" in run.tags
    assert artifacts.keys() == {"configuration", "progress", "metrics", "validation", "published"}
    assert artifacts["progress"].data == 100
    assert "data:image/png;base64," in str(artifacts["metrics"].data)
    assert "data:image/jpeg;base64," in str(artifacts["validation"].data)
    assert str(artifacts["published"].data).count("| verified |") == 3
    assert "model_type" in str(artifacts["configuration"].data)

    # Publishing the same folder again sends nothing and says the same.
    again = publish(path=str(output_dir))
    assert [row["manifest_sha256"] for row in again["published"]] == [
        row["manifest_sha256"] for row in result["published"]
    ]


def test_a_required_destination_that_refuses_fails_the_run_and_can_be_served_later(
    options: dict[str, Any], share: Path, tmp_path: Path
) -> None:
    (share / "my run").mkdir()
    (share / "my run/pipeline").write_text("a file where the folder must be")
    optional = {"provider": "folder", "path": str(tmp_path), "base_path": "second", "required": False}
    options["publishing_config"] += [optional]
    with pytest.raises(PublishError) as caught:
        train(config=options)
    output_dir = Path(options["output_dir"])
    assert f"flowtuner publish '{output_dir}'" in str(caught.value)
    assert "share lacks release" in str(caught.value)
    assert "second" not in str(caught.value)
    assert steps_in(tmp_path / "second/my run/pipeline") == "weights of step 8"
    statuses = [event.data for event in read_events(output_dir / "logs/events.jsonl") if event.type == STATUS]
    assert [status["status"] for status in statuses] == ["running", "failed"]

    (share / "my run/pipeline").unlink()
    report = publish(path=str(output_dir))
    assert all(row["verified"] for row in report["published"])
    assert steps_in(share / "my run/pipeline") == "weights of step 8"


@pytest.mark.slow
def test_an_optional_destination_that_refuses_is_reported_and_nothing_more(
    options: dict[str, Any], share: Path
) -> None:
    options["publishing_config"][0]["required"] = False
    (share / "my run").mkdir()
    (share / "my run/pipeline").write_text("a file where the folder must be")
    result = train(config=options)
    assert isinstance(result, dict)
    assert [row["verified"] for row in result["published"]] == [True, True, False]
    assert "move it away" in result["published"][2]["error"]


@pytest.mark.slow
def test_a_leg_whose_engine_dies_ends_at_the_same_step(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_ENGINE", "die@7,bad_validation")
    result = train(config=options)
    assert isinstance(result, dict)
    assert result["step"] == 8
    events = list(read_events(Path(options["output_dir"]) / "logs/events.jsonl"))
    assert [event.data["step"] for event in events if event.type == METRIC] == [1, 2, 3, 4, 5, 6, 5, 6, 7, 8]
    assert steps_in(Path(options["output_dir"]) / "checkpoint-8") == "weights of step 8"


def test_a_checkpoint_that_was_not_whole_when_the_engine_died_is_made_again(
    options: dict[str, Any], share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_ENGINE", "die@7,late_seal")
    result = train(config=options)
    assert isinstance(result, dict)
    events = list(read_events(Path(options["output_dir"]) / "logs/events.jsonl"))
    steps = [event.data["step"] for event in events if event.type == METRIC]
    assert steps == [*range(1, 7), *range(1, 9)]
    for step in (4, 8):
        assert steps_in(share / f"my run/checkpoint-{step}") == f"weights of step {step}"


def test_all_mistakes_are_told_before_anything_starts(options: dict[str, Any], tmp_path: Path) -> None:
    wrong = {"learning_rat": 1, "train_batch_size": 0}
    with pytest.raises(ConfigError) as caught:
        train(config=options | wrong)
    assert "learning_rat" in str(caught.value)
    assert "train_batch_size" in str(caught.value)
    options["publishing_config"][0]["path"] = str(tmp_path / "not/mounted")
    with pytest.raises(ConfigError) as caught:
        train(config=options | {"pretrained_model_name_or_path": "/no/such/model"})
    assert "mount the share" in str(caught.value)
    assert "/no/such/model" in str(caught.value)
    assert not (tmp_path / "my run/logs/events.jsonl").exists()


def test_a_run_that_would_lose_its_results_is_refused_before_anything_is_loaded(
    options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="would_lose_results: this machine is thrown away"):
        train(config=options | {"ephemeral": "yes"})  # the share lies on the same disk
    assert not (tmp_path / "my run/logs/events.jsonl").exists()
    assert cache(config=options | {"ephemeral": "yes"})["text"]["total"] == 8


def test_mistakes_in_destinations_stand_in_the_same_list_as_all_others(options: dict[str, Any]) -> None:
    options["publishing_config"] += [{"provider": "foldr"}]
    with pytest.raises(ConfigError) as caught:
        train(config=options | {"learning_rat": 1})
    text = str(caught.value)
    assert "learning_rat" in text
    assert "did you mean 'folder'?" in text


def test_training_and_caching_are_subflows_of_other_flows(options: dict[str, Any]) -> None:
    @flow
    def parent() -> tuple[Any, Any]:
        return cache(config=options), train(config=options)

    cached, trained = parent()
    assert cached["text"]["total"] == 8
    assert trained["step"] == 8


def test_a_second_run_goes_on_and_sends_only_what_is_new(options: dict[str, Any]) -> None:
    train(config=options)
    train(config=options | {"max_train_steps": 12})
    sent = [
        event.data["what"]
        for event in read_events(Path(options["output_dir"]) / "logs/events.jsonl")
        if event.type == PUBLISH and event.data["state"] == "verified"
    ]
    assert sorted(sent[:3]) == ["checkpoint-4", "checkpoint-8", "release"]  # uploads overlap, so any may end first
    assert "checkpoint-12" in sent[3:]


def test_publishing_a_folder_that_is_not_there_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"path: is no folder; got .*/nothing"):
        publish(path=str(tmp_path / "nothing"))
