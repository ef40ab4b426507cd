"""The user's own scripts in a run: when they are called, with what, and what becomes of their ends."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from flows.publish import publish
from flows.train import train
from flowtuner.engine.events import NOTIFICATION, SCRIPT, read_events
from flowtuner.errors import ConfigError, PublishError
from tests.flows.test_train_flow import read_run

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def called(tmp_path: Path) -> Path:
    return tmp_path / "called.jsonl"


@pytest.fixture
def hook(tmp_path: Path, called: Path) -> str:
    """A script that writes down its arguments; `fail` among them makes it fail."""
    path = tmp_path / "hook.py"
    path.write_text(
        f"import json, os, sys\n"
        f"with open({str(called)!r}, 'a') as file: file.write(json.dumps(sys.argv[1:]) + chr(10))\n"
        f"print('key is', os.environ.get('CANARY_KEY'))\n"
        f"sys.exit(3 if 'fail' in sys.argv else 0)\n"
    )
    return f"{sys.executable} {path}"


def calls(called: Path) -> list[list[str]]:
    return [json.loads(line) for line in called.read_text().splitlines()] if called.exists() else []


def rows_of(options: dict[str, Any]) -> list[dict[str, Any]]:
    log = Path(options["output_dir"]) / "logs/events.jsonl"
    return [event.data for event in read_events(log) if event.type == SCRIPT]


def test_publishing_by_hand_calls_the_script_for_what_was_not_told_yet(
    options: dict[str, Any], share: Path, tmp_path: Path, hook: str, called: Path
) -> None:
    script = f"{hook} {{remote_checkpoint_path}} {{global_step}}"
    result = train(config=options | {"post_upload_script": script})
    assert isinstance(result, dict)
    told = calls(called)
    assert len(told) == 3
    output = options["output_dir"]
    publish(output, post_upload_script=script)
    assert calls(called) == told
    (tmp_path / "elsewhere").mkdir()
    new = {"provider": "folder", "path": str(tmp_path / "elsewhere"), "name": "new"}
    report = publish(output, [new], post_upload_script=script)
    assert [row["exit_code"] for row in report["scripts"]] == [0, 0, 0]
    assert sorted(calls(called)[3:]) == sorted(
        [[row["uri"], str(row["step"])] for row in report["published"] if row["destination"] == "new"]
    )
    with pytest.raises(ConfigError, match="unknown placeholder"):
        publish(output, post_upload_script="true {nothing}")
    with pytest.raises(ConfigError, match="another program made this folder"):
        publish(str(share / "my run/pipeline"), [new], post_upload_script=script)


def test_scripts_are_called_once_per_upload_and_checkpoint(
    options: dict[str, Any], share: Path, hook: str, called: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_KEY", "canary-script-0001")
    values = options | {
        "post_upload_script": f"{hook} up {{global_step:04d}} {{remote_checkpoint_path}} {{validation_seed}} last",
        "post_checkpoint_script": f"{hook} saved {{local_checkpoint_path}} {{remote_checkpoint_path}}",
        "validation_method": "external-script",
        "validation_external_script": f"{hook} validate {{validation_prompt}} {{local_checkpoint_path}} fail",
        "validation_prompt": "it's a cat",
    }
    result = train(config=values)
    assert isinstance(result, dict)
    output, there = Path(options["output_dir"]), (share / "my run").as_uri()
    assert sorted(calls(called)) == sorted(
        [
            ["saved", str(output / "checkpoint-4"), ""],
            ["saved", str(output / "checkpoint-8"), ""],
            ["up", "0004", f"{there}/checkpoint-4", "", "last"],
            ["up", "0008", f"{there}/checkpoint-8", "", "last"],
            ["up", "0008", there, "", "last"],
            ["validate", "it's a cat", str(output / "checkpoint-8"), "fail"],
        ]
    )
    ends = {(row["script"], row["what"]): row["exit_code"] for row in result["scripts"]}
    assert ends[("post_upload_script", "release")] == 0
    assert ends[("validation_external_script", "step-8")] == 3
    logs = {row["log"] for row in result["scripts"]}
    assert {Path(log).read_text() for log in logs} == {"key is ***\n"}
    _, artifacts = read_run(result["run_id"])
    page = str(artifacts["scripts"].data)
    assert "post_upload_script" in page and "exit code 3" in page and "key is ***" in page
    assert "canary-script-0001" not in (output / "logs/events.jsonl").read_text() + page

    # A run that goes on sees the same uploads again; they are not told a second time.
    train(config=values | {"max_train_steps": 12})
    told = [call[1] for call in calls(called) if call[0] == "up"]
    assert sorted(told) == ["0004", "0008", "0008", "0012", "0012"]


@pytest.mark.slow
def test_a_failed_upload_calls_nothing_and_a_failed_script_fails_nothing(
    options: dict[str, Any], tmp_path: Path, hook: str, called: Path
) -> None:
    options["publishing_config"][0]["include"] = ["nothing-of-this-name"]
    second = {"provider": "folder", "path": str(tmp_path), "base_path": "second", "name": "second"}
    options["publishing_config"] += [second]
    with pytest.raises(PublishError):
        train(config=options | {"post_upload_script": f"{hook} {{remote_checkpoint_path}} fail", "script_retries": 1})
    assert {call[0].split("/")[-3] for call in calls(called) if "checkpoint" in call[0]} == {"second"}
    ended = [row for row in rows_of(options) if row["state"] == "failed"]
    assert {row["destination"] for row in ended} == {"second"}
    assert len(calls(called)) == 2 * 3  # each once more
    log = Path(options["output_dir"]) / "logs/events.jsonl"
    told = [event.data["message"] for event in read_events(log) if event.type == NOTIFICATION]
    assert any("ended with exit code 3" in message for message in told)


@pytest.mark.slow
def test_a_slow_script_holds_neither_training_nor_uploads(options: dict[str, Any], tmp_path: Path) -> None:
    released = tmp_path / "released"
    code = f"import os, time\nwhile not os.path.exists({str(released)!r}): time.sleep(0.05)\n"
    (tmp_path / "slow.py").write_text(code)
    log = Path(options["output_dir"]) / "logs/events.jsonl"

    def release_when_all_is_published() -> None:
        while not log.exists() or sum('"state": "verified"' in line for line in log.read_text().splitlines()) < 3:
            threading.Event().wait(0.1)
        released.touch()

    threading.Thread(target=release_when_all_is_published, daemon=True).start()
    result = train(config=options | {"post_upload_script": f"{sys.executable} {tmp_path / 'slow.py'}"})
    assert isinstance(result, dict)
    assert [row["exit_code"] for row in result["scripts"]] == [0, 0, 0]


def test_a_mistake_in_a_script_is_told_with_all_others(options: dict[str, Any]) -> None:
    wrong = {"post_upload_script": "true {remote}", "post_checkpoint_script": "/no/such {x}", "learning_rat": 1}
    with pytest.raises(ConfigError) as caught:
        train(config=options | wrong)
    text = str(caught.value)
    assert "learning_rat" in text
    assert "post_upload_script: has an unknown placeholder" in text
    assert "post_checkpoint_script: has an unknown placeholder" in text
