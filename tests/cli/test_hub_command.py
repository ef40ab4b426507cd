"""`flowtuner hub`: the checklist, what stands in a repository, and a new one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowtuner.cli.main import main
from flowtuner.engine.events import PUBLISH, EventLog
from tests.blocks.conftest import ignore, take_checkpoint
from tests.fakes.hub.accounts import ALICE, ALICE_READS
from tests.fakes.hub.server import Hub

REPO = "alice/fox-lora"


def test_the_checklist_of_a_run_that_may_start(hub: Hub, config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--push_to_hub=true", f"--hub_model_id={REPO}", "--hub_strategy=checkpoint"]
    assert main(["hub", "preflight", "--config", str(config_file), *options]) == 0
    shown = capsys.readouterr().out
    assert "[pass] a token is there: token: it is from the environment variable HF_TOKEN" in shown
    assert "[pass] the token may write: write" in shown
    assert "[fail]" not in shown
    assert ALICE not in shown


def test_what_is_wrong_has_a_code_for_machines(
    hub: Hub, config_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["hub", "preflight", "--config", str(config_file), "--json"]) == 2
    assert [check["code"] for check in json.loads(capsys.readouterr().out) if check["state"] == "fail"] == ["push_off"]
    monkeypatch.setenv("HF_TOKEN", ALICE_READS)
    assert main(["hub", "preflight", REPO, "--json"]) == 2
    [failed] = [check for check in json.loads(capsys.readouterr().out) if check["state"] == "fail"]
    assert failed["code"] == "write_forbidden"
    assert failed["fix"]


def test_a_run_is_checked_before_it_starts(
    hub: Hub, config_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--config", str(config_file), "--push_to_hub=true", f"--hub_model_id={REPO}"]
    assert main(["check", *options]) == 0
    monkeypatch.setenv("HF_TOKEN", "$HF_TOKEN")
    capsys.readouterr()
    assert main(["check", *options]) == 2
    assert "token_missing" in "".join(capsys.readouterr())


def test_a_repository_is_made_by_hand(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hub", "create", REPO]) == 0
    assert main(["hub", "create", "acme/shown-lora", "--public"]) == 0
    assert f"{hub.url}/{REPO} is made" in capsys.readouterr().out
    assert (hub.state.repos[REPO].is_private, hub.state.repos["acme/shown-lora"].is_private) == (True, False)
    assert main(["hub", "create", REPO]) == 1
    assert "name_conflict" in capsys.readouterr().err
    assert main(["hub", "create", "bob/x"]) == 1
    assert "write_forbidden" in capsys.readouterr().err


def test_where_says_what_is_there_and_what_is_on_its_way(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from blocks.huggingface import HuggingFaceDestination

    HuggingFaceDestination(repo_id=REPO).publish(take_checkpoint(tmp_path, 20), ignore)
    output_dir = tmp_path / "output"
    with EventLog(output_dir / "logs" / "events.jsonl", "r1") as log:
        log.append(PUBLISH, {"what": "release", "state": "uploading", "provider": "huggingface"})
    entry = {"provider": "huggingface", "repo_id": REPO}
    (output_dir / "logs" / "destinations.json").write_text(json.dumps({"entries": [entry], "left_out": 0}))
    assert main(["hub", "where", str(output_dir)]) == 0
    shown = capsys.readouterr().out
    assert "private" in shown
    assert "checkpoint-20: step 20 of run 1" in shown
    assert "still being uploaded: release" in shown
    assert main(["hub", "where", "alice/nowhere"]) == 1
    assert "flowtuner hub create" in capsys.readouterr().err
