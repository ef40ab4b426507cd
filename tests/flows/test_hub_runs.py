"""Runs whose results go to the Hub: what is there afterwards, what a refusal costs, and tokens that are replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blocks.huggingface import HuggingFaceDestination
from flows.publish import publish
from flows.train import train
from flowtuner.engine.events import NOTIFICATION, read_events
from flowtuner.errors import ConfigError, PublishError
from flowtuner.options import load
from flowtuner.publishing.door import conceal_run
from flowtuner.publishing.hub import hub_entry
from tests.blocks.conftest import ignore, take_checkpoint
from tests.fakes.hub.accounts import ALICE, ALICE_READS
from tests.fakes.hub.faults import Fault
from tests.fakes.hub.server import Hub

pytestmark = pytest.mark.usefixtures("prefect_api")

REPO = "alice/fox-lora"
PUSH = {"push_to_hub": True, "hub_model_id": REPO, "publishing_config": []}


def test_a_run_pushes_its_checkpoints_and_its_release(options: dict[str, Any], hub: Hub) -> None:
    report = train(config=options | PUSH | {"hub_strategy": "checkpoint"})
    assert isinstance(report, dict)
    assert {(row["what"], row["verified"]) for row in report["published"]} == {
        ("checkpoint-4", True),
        ("checkpoint-8", True),
        ("release", True),
    }
    # A release that is what the last checkpoint left at the top needs no commit of its own.
    assert {"Checkpoint of step 4", "Checkpoint of step 8"} <= set(hub.titles(REPO))
    assert len(hub.titles(REPO)) == len(set(hub.titles(REPO))) <= 4
    top = json.loads(hub.files(REPO)["manifest.json"])
    assert (top["name"], top["step"]) == ("release", 8)  # whoever came last
    last = json.loads(hub.files(REPO)["last-checkpoint/manifest.json"])
    assert (last["name"], last["step"]) == ("checkpoint-8", 8)
    assert hub.state.repos[REPO].is_private
    commits = len(hub.titles(REPO))
    publish(options["output_dir"])  # where to is remembered, and nothing is new
    assert len(hub.titles(REPO)) == commits


def test_at_the_end_means_one_commit(options: dict[str, Any], hub: Hub) -> None:
    report = train(config=options | PUSH)
    assert isinstance(report, dict)
    assert [row["what"] for row in report["published"]] == ["release"]
    assert hub.titles(REPO) == ["Release of step 8", "initial commit"]


def test_a_token_that_only_reads_is_refused_before_anything_is_loaded(
    options: dict[str, Any], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.state.create(REPO, "alice", is_private=True)
    monkeypatch.setenv("HF_TOKEN", ALICE_READS)
    with pytest.raises(ConfigError, match="write_forbidden"):
        train(config=options | PUSH)
    assert not (Path(options["output_dir"]) / "logs" / "engine.log").exists()


@pytest.mark.slow
def test_a_hub_that_refuses_at_the_end_costs_nothing_but_another_command(options: dict[str, Any], hub: Hub) -> None:
    hub.state.traffic.faults = [Fault("POST .*/commit/main", 403, times=99)]
    with pytest.raises(PublishError, match="flowtuner publish"):
        train(config=options | PUSH)
    assert hub.titles(REPO) == ["initial commit"]
    output_dir = Path(options["output_dir"])
    before = {path: path.read_bytes() for path in output_dir.rglob("*.json") if "checkpoint" in str(path)}
    assert before
    hub.state.traffic.clear()
    publish(str(output_dir))
    assert "Release of step 8" in hub.titles(REPO)
    assert hub.state.traffic.count("PUT /_lfs/") == 1  # the probe; what had arrived is not sent again
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_a_hub_that_is_away_for_a_while_is_waited_for(options: dict[str, Any], hub: Hub) -> None:
    hub.state.traffic.faults = [Fault("POST .*/commit/main", 503, times=3)]
    report = train(config=options | PUSH)
    assert isinstance(report, dict)
    assert hub.titles(REPO) == ["Release of step 8", "initial commit"]


@pytest.mark.slow
def test_a_machine_that_is_thrown_away_is_kept_until_everything_is_published(
    options: dict[str, Any], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.hold.PAUSE_S", 0.2)
    alone = PUSH | {"ephemeral": "yes"}
    hub.state.traffic.faults = [Fault("POST .*/commit/main", 403, times=4)]  # two when it ends, two while it stays
    report = train(config=options | alone)
    assert isinstance(report, dict)
    assert hub.titles(REPO)[0] == "Release of step 8"
    log = Path(options["output_dir"]) / "logs" / "events.jsonl"
    said = [event.data["message"] for event in read_events(log) if event.type == NOTIFICATION]
    assert sum("the run stays for up to 15 minutes" in message for message in said) == 1


@pytest.mark.slow
def test_a_machine_is_not_kept_longer_than_was_said(
    options: dict[str, Any], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.hold.PAUSE_S", 0.2)
    alone = PUSH | {"ephemeral": "yes", "hold_on_failure_minutes": 0.02}
    hub.state.traffic.faults = [Fault("POST .*/commit/main", 403, times=99)]
    with pytest.raises(PublishError, match="flowtuner publish"):
        train(config=options | alone)
    assert 2 < hub.state.traffic.count("POST .*/commit/main") < 20
    hub.state.traffic.clear()
    hub.state.traffic.faults = [Fault("POST .*/commit/main", 403, times=99)]
    with pytest.raises(PublishError, match="flowtuner publish"):  # one that stays is left at once
        train(config=options | alone | {"ephemeral": "no", "hold_on_failure_minutes": 15})
    assert hub.state.traffic.count("POST .*/commit/main") <= 2


def test_a_token_that_was_replaced_in_its_block_works_without_a_restart(hub: Hub, tmp_path: Path) -> None:
    entry = {"provider": "huggingface", "repo_id": REPO, "token": ALICE}
    kept = HuggingFaceDestination.keep_credentials(entry, "entry")
    assert ALICE not in str(kept)
    destination = HuggingFaceDestination.from_entry(kept, "entry")
    assert destination.publish(take_checkpoint(tmp_path, 20), ignore).verified
    access = hub.state.accounts.tokens.pop(ALICE)
    later = take_checkpoint(tmp_path, 40)
    with pytest.raises(PublishError, match=rf"token_invalid.*the block {kept['block']}"):
        destination.publish(later, ignore)
    hub.state.accounts.tokens["hf_canaryReplacement"] = access
    assert HuggingFaceDestination.keep_credentials(entry | {"token": "hf_canaryReplacement"}, "entry") == kept
    assert destination.publish(later, ignore).verified


def test_a_token_among_the_options_becomes_a_block(options: dict[str, Any], hub: Hub) -> None:
    given = options | PUSH | {"push_to_hub_token": ALICE}
    config = load(values=given, environ={}).config
    concealed = conceal_run({"config": given, "env": None, "config_file": None}, config)
    assert ALICE not in json.dumps(concealed)
    block = concealed["config"]["hub_block"]
    again = load(values=concealed["config"], environ={}).config
    destination = HuggingFaceDestination.from_entry(hub_entry(again), "hub")
    assert destination._find_token().value == ALICE
    assert destination._find_token().source == f"the block {block}"
