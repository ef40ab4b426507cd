"""A run that SIGTERM stopped and that goes on elsewhere from its destination ends like one that never stopped."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from flowtuner import durable
from flowtuner.engine.events import METRIC, follow_events
from tests.e2e.test_resume import losses_of, train_straight, weights_of

COMMAND = [sys.executable, "-m", "flowtuner.cli", "train", "--config"]
STEPS = 12


def start(values: dict[str, Any], root: Path) -> subprocess.Popen[str]:
    config = root / "config.json"
    config.write_text(json.dumps(values))
    environment = dict(os.environ) | {"FLOWTUNER_HOME": str(root / "home"), "PREFECT_HOME": str(root / "prefect")}
    environment.pop("PREFECT_API_URL", None)
    return subprocess.Popen([*COMMAND, str(config)], env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_stopped_run_goes_on_elsewhere_and_ends_with_the_same_bytes(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    values = tiny_run | {
        "max_train_steps": STEPS,
        "checkpoint_step_interval": 100,
        "gradient_accumulation_steps": 2,
        "use_ema": True,
        "caption_dropout_probability": 0.3,
        "grace_seconds": 120,
    }
    straight, losses = train_straight(values, "straight")

    here = tmp_path / "here" / "run"
    entry = {"provider": "folder", "path": str(share)}
    log, at = here / "logs" / "events.jsonl", random.randint(1, STEPS - 3)
    with start(values | {"output_dir": str(here), "publishing_config": [entry]}, tmp_path) as process:
        stop = threading.Event()
        patience = threading.Timer(600, stop.set)
        patience.start()
        next(event for event in follow_events(log, 0, stop, 0.01) if event.type == METRIC and event.data["step"] >= at)
        patience.cancel()  # otherwise the tests' own process would wait for it at its end
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=600)
    assert process.returncode == 75, said
    report = durable.read_json(here / "logs" / "report.json")
    reached = report["step"]
    assert (share / "run" / f"checkpoint-{reached}" / "manifest.json").is_file()
    assert [row["verified"] for row in report["published"]] == [True]

    there = tmp_path / "there" / "run"
    with contextlib.suppress(FileNotFoundError):
        here.rename(tmp_path / "lost")  # the machine is gone
    resume = (share / "run" / f"checkpoint-{reached}").as_uri()
    again = {"output_dir": str(there), "publishing_config": [entry], "resume_from_checkpoint": resume}
    with start(values | again, tmp_path) as process:
        _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert weights_of(there) == weights_of(straight)
    later = losses_of(there)
    assert sorted(later) == list(range(reached + 1, STEPS + 1))
    assert later == {step: losses[step] for step in later}
