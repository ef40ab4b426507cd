"""The real command as a process of its own: server, flow, engine, display, signals and exit codes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from flowtuner.cli.processes import find_processes
from flowtuner.engine.events import follow_events

COMMAND = [sys.executable, "-m", "flowtuner.cli"]
TIMEOUT_S = 110


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    words = [*COMMAND, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


def signal_during_training(number: signal.Signals, config_file: Path) -> tuple[int, str]:
    """Sends a signal once training reports steps; answers with exit code and what was said."""
    words = [*COMMAND, "train", "--config", str(config_file), "--max_train_steps=100000"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        said = ""
        for line in process.stderr:
            said += line
            if " step " in line:
                break
        process.send_signal(number)
        said += process.stderr.read()
        return process.wait(TIMEOUT_S), said


def test_a_run_from_start_to_verified_release(config_file, tmp_path):
    share = tmp_path / "share"
    share.mkdir()
    entry = json.dumps({"provider": "folder", "path": str(share)})
    done = run("train", "--config", config_file, "--json", f"--publishing_config={entry}")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    kinds = {event["type"] for event in events}
    assert {"training.metric", "training.checkpoint", "publish.status", "training.status"} <= kinds
    assert "trained to step 6 of 6" in done.stderr
    assert "published release" in done.stderr
    assert "Prefect UI:" in done.stderr
    assert (share / "output" / "checkpoint-6" / "manifest.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 75, "preempted"), (signal.SIGINT, 130, "interr")]
)
def test_a_signal_saves_and_the_same_command_goes_on(number, code, word, config_file, tmp_path):
    ended_with, said = signal_during_training(number, config_file)
    assert ended_with == code, said
    newest = max(int(path.name.partition("-")[2]) for path in (tmp_path / "output").glob("checkpoint-*"))
    assert f"{word}" in said
    assert f"checkpoint-{newest}; the same command goes on from there" in said
    done = run("train", "--config", config_file, f"--max_train_steps={newest + 2}")
    assert done.returncode == 0, done.stderr
    assert f"trained to step {newest + 2} of {newest + 2}" in done.stdout


@pytest.mark.slow
def test_a_run_that_fails_says_why_without_a_traceback(config_file, tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    for weights in (model / "transformer").glob("*.safetensors"):
        save_file({"other.weight": np.zeros(3, dtype=np.float32)}, weights)
    done = run("train", "--config", config_file, f"--pretrained_model_name_or_path={model}")
    assert done.returncode == 1
    assert "flowtuner: " in done.stderr
    assert f"Logs: {tmp_path / 'output' / 'logs'}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_caching_explaining_and_publishing_by_hand(config_file, pictures, tmp_path):
    assert run("cache", "--config", config_file).returncode == 0
    picture = next(pictures.glob("*.png"))
    explained = run("cache", "explain", picture, "--config", config_file)
    assert explained.returncode == 0
    assert "latent hit" in explained.stdout
    assert run("train", "--config", config_file).returncode == 0
    (tmp_path / "share").mkdir()
    done = run("publish", tmp_path / "output", "--to", tmp_path / "share")
    assert done.returncode == 0, done.stderr
    assert "published release" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_runs_deployments_and_its_end_saves_them(config_file, home, tmp_path, number):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with subprocess.Popen([*COMMAND, "server", "--port", port], stdout=subprocess.PIPE, text=True) as server:
        api = next(line for line in server.stdout if line.startswith("Prefect API:")).split("=", 1)[1].strip()
        auth = (home / "server" / "auth").read_text()
        environment = os.environ | {"PREFECT_API_URL": api, "PREFECT_API_AUTH_STRING": auth}
        parameters = {"config_file": str(config_file), "config": json.dumps({"max_train_steps": 100_000})}
        words = ["deployment", "run", "train/train", *(f"-p{name}={value}" for name, value in parameters.items())]
        subprocess.run([sys.executable, "-m", "prefect", *words], env=environment, check=True, capture_output=True)
        log = tmp_path / "output" / "logs" / "events.jsonl"
        seen = follow_events(log, 0, threading.Event())
        next(event for event in seen if event.type == "training.progress")
        server.send_signal(number)
        assert server.wait(TIMEOUT_S) == 0
    assert find_processes(b"prefect", api) == []
    ended = next(event.data for event in seen if event.data.get("status") == "preempted")
    assert Path(ended["checkpoint"]).is_dir()
