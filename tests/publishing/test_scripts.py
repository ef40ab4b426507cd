"""Commands of the user's own: how a template becomes arguments, what is found wrong before a run, and how they end."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from flowtuner.options import TrainingConfig
from flowtuner.publishing.scripts import (
    CUT_OFF_BY_STOP,
    CUT_OFF_BY_TIME,
    check_script,
    execute,
    expand,
    hide,
    needs_checkpoint,
    values_of,
)


def config(**values: Any) -> TrainingConfig:
    base = {"model_family": "flux", "model_type": "lora", "output_dir": "out", "hub_model_id": "me/model"}
    return TrainingConfig.model_validate(base | values)


def arguments(template: str, **values: Any) -> list[str]:
    return expand(template, values_of(config(**values), 1234, "/out/my run/checkpoint-1234", "s3://b/my%20run"))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("notify {global_step}", ["notify", "1234"]),
        ("notify {global_step:06d} end", ["notify", "001234", "end"]),
        ("run {local_checkpoint_path} {remote_checkpoint_path}", ["run", "/out/my run/checkpoint-1234", "s3://b/my%20run"]),
        ("run {model_family} {model_type} {lora_type}", ["run", "flux", "lora", "standard"]),
        ("run {huggingface_path} {tracker_run_name}", ["run", "me/model", "simpletuner-testing"]),
        ("run --prompt={validation_prompt} x", ["run", "--prompt=a cat's \"hat\" $HOME ~ {x}", "x"]),
        ("run {validation_guidance:.2f} {validation_num_inference_steps}", ["run", "7.50", "30"]),
        ("run {validation_seed} last", ["run", "", "last"]),
        ("run {validation_seed:05d} last", ["run", "", "last"]),
        ("run {validation_disable}", ["run", "false"]),
        ("run 'two words' {{not}} a\\ b", ["run", "two words", "{not}", "a b"]),
        ("run $SCRIPT_PLACE/x '$SCRIPT_PLACE'", ["run", "/a b/x", "/a b"]),
        ("~/run {global_step}~", ["/home/me/run", "1234~"]),
    ],
)  # fmt: skip
def test_no_value_becomes_several_arguments_or_none(
    template: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRIPT_PLACE", "/a b")
    monkeypatch.setenv("HOME", "/home/me")
    assert arguments(template, validation_prompt='a cat\'s "hat" $HOME ~ {x}') == expected


def test_an_empty_remote_path_stays_an_argument() -> None:
    assert expand("run {remote_checkpoint_path} last", values_of(config(), 1)) == ["run", "", "last"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("true {remote_path}", ["unknown placeholder", "{remote_path}", "Did you mean {remote_checkpoint_path}?"]),
        ("true {} {0}", ["unknown placeholder"]),
        ("true {global_step.real}", ["unknown placeholder"]),
        ("true {validation_gidance}", ["Did you mean {validation_guidance}?"]),
        ("true {model_family:05d}", ["cannot be filled in"]),
        ("true {global_step!r}", ["cannot be split", "conversion"]),
        ("true {global_step:{validation_seed}}", ["placeholder within it"]),
        ("true 'open", ["Check the quotes"]),
        ("true {open", ["cannot be split"]),
        ("  ", ["names no program"]),
        ("/no/such/program {global_step}", ["does not exist"]),
        ("no-such-program-anywhere", ["does not exist"]),
        ("{plain} x", ["is not executable", "chmod +x"]),
    ],
)
def test_mistakes_are_found_before_the_run(template: str, said: list[str], tmp_path: Path) -> None:
    plain = tmp_path / "plain.py"
    plain.write_text("")
    faults = check_script("post_upload_script", template.replace("{plain}", str(plain)), config())
    assert faults
    assert all(part in "\n".join(map(str, faults)) for part in said), faults


def test_a_right_template_has_no_faults() -> None:
    template = f"{sys.executable} -c pass {{remote_checkpoint_path}} {{global_step:05d}} {{validation_prompt}}"
    assert check_script("post_upload_script", template, config()) == []


def test_whether_a_checkpoint_is_needed_is_seen_in_the_template() -> None:
    assert needs_checkpoint("run --local={local_checkpoint_path}")
    assert not needs_checkpoint("run {global_step} {{local_checkpoint_path}}")


def run(code: str, timeout_s: float = 60, stop: threading.Event | None = None, **environ: str) -> Any:
    return execute([sys.executable, "-c", code], timeout_s, stop or threading.Event(), environ)


def test_output_and_exit_code_are_kept() -> None:
    done = run("import sys; print('out'); sys.stderr.write('err'); sys.exit(7)")
    assert (done.exit_code, done.is_success, done.describe()) == (7, False, "ended with exit code 7")
    assert "out" in done.output and "err" in done.output
    assert run("pass").is_success
    assert run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").describe() == "was killed by SIGKILL"


def test_one_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; print('begun', flush=True); "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).wait()"
    )
    started = time.monotonic()
    done = run(code, timeout_s=1.0)
    assert time.monotonic() - started < 30
    assert (done.exit_code, done.is_success) == (CUT_OFF_BY_TIME, False)
    assert "its time" in done.describe()


def test_a_child_that_outlives_it_is_not_waited_for() -> None:
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'])"
    started = time.monotonic()
    assert run(code).is_success
    assert time.monotonic() - started < 30


def test_a_stopped_run_ends_it() -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    assert run("import time; time.sleep(600)", stop=stop).exit_code == CUT_OFF_BY_STOP


def test_secrets_of_the_environment_do_not_show() -> None:
    environ = {"FAL_KEY": "canary-fal", "PREFECT_API_AUTH_STRING": "canary:auth", "SHORT_KEY": "x", "PLAIN": "visible"}
    done = execute([sys.executable, "-c", "print('canary-fal canary:auth x visible')"], 60, threading.Event(), environ)
    assert done.output.strip() == "*** *** x visible"
    assert hide("token=canary-fal", environ) == "token=***"
