"""Stops with real processes and signals: what is on the destination afterwards, with which code, and how soon."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3.session
import pytest
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL

from flowtuner import durable
from flowtuner.engine.checkpoints import find_faults, list_checkpoints
from flowtuner.engine.events import METRIC, PUBLISH, STATUS, read_events
from tasks.cancellation import limited
from tasks.grace import REPEAT_S, Grace
from tests.fakes.faultproxy import FaultProxy, Rule
from tests.fakes.s3.servers import KEYS, REGION, moto

ROOT = Path(__file__).parents[2]
DEADLINE_S = 150


@dataclass
class Started:
    """A run of the command line in a process of its own."""

    process: subprocess.Popen[str]
    output_dir: Path

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in read_events(self.output_dir / "logs/events.jsonl") if event.type == kind]

    def wait_for(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not is_so():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)

    def wait_for_step(self, step: int) -> None:
        self.wait_for(lambda: any(data["step"] >= step for data in self.events(METRIC)))

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, float]:
        started = time.monotonic()
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, said, time.monotonic() - started

    @property
    def newest(self) -> Path:
        return list_checkpoints(self.output_dir)[-1]

    @property
    def report(self) -> dict[str, Any]:
        return durable.read_json(self.output_dir / "logs/report.json")  # type: ignore[no-any-return]


Start = Callable[..., Started]


def busy_s() -> float:
    """How long this machine takes for what a quiet one does in a second: starting Python with what a run imports."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import prefect.flows"], check=True)
    return time.monotonic() - started


@pytest.fixture
def start(prefect_api: None, options: dict[str, Any], tmp_path: Path) -> Iterator[Start]:
    """Starts `flowtuner train` with an engine that counts, 50 ms a step."""
    running: list[subprocess.Popen[str]] = []

    def start(**values: Any) -> Started:
        config = options | {"max_train_steps": 2000, "checkpoint_step_interval": 1000, "validation_disable": True}
        (tmp_path / "config.json").write_text(json.dumps(config | values))
        environment = dict(os.environ) | {
            "PREFECT_API_URL": str(PREFECT_API_URL.value()),
            "PYTHONPATH": f"{os.environ['PYTHONPATH']}:{ROOT}",
            "FLOWTUNER_HOME": str(tmp_path / "home"),
            "FAKE_ENGINE": "slow",
        }
        words = [sys.executable, "-m", "flowtuner.cli", "train", "--config", str(tmp_path / "config.json")]
        process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        running.append(process)
        return Started(process, Path(options["output_dir"]))

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.timeout(400)
def test_sigterm_at_any_step_leaves_a_verified_checkpoint_of_exactly_that_step(start: Start, share: Path) -> None:
    run = start()
    run.wait_for_step(random.randint(3, 20))
    code, said, seconds = run.end()
    assert code == 75, said
    assert seconds < 25
    trained = run.events(METRIC)[-1]["step"]
    assert run.newest.name == f"checkpoint-{trained}"
    there = share / "my run" / run.newest.name
    assert durable.read_json(there / "manifest.json")["step"] == trained
    assert find_faults(there) == []
    assert f"The checkpoint is {run.newest}" in said
    assert f"share holds {run.newest.name}, verified: {there.as_uri()}" in said
    assert run.report["status"] == "preempted"
    assert run.report["resume_from"] == str(run.newest)
    assert [(row["what"], row["verified"]) for row in run.report["published"]] == [(run.newest.name, True)]
    assert run.report["destinations"][0]["publish_lag_steps"] == 0


@pytest.fixture
def stalling(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with moto() as url, FaultProxy(int(url.rpartition(":")[2])) as proxy:
        session = boto3.session.Session(KEYS["access_key"], KEYS["secret_key"], region_name=REGION)
        client = session.client("s3", endpoint_url=url)
        client.create_bucket(Bucket="models")
        client.close()
        yield proxy


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_destination_that_hangs_does_not_hold_a_stopped_run(start: Start, stalling: FaultProxy) -> None:
    entry = {"provider": "s3", "name": "bucket", "bucket": "models", "endpoint_url": stalling.url, **KEYS}
    run = start(publishing_config=[entry], checkpoint_step_interval=10, grace_seconds=3)
    run.wait_for(lambda: any(data["verified"] for data in run.events(PUBLISH)))
    stalling.rules.append(Rule("stall", method="PUT", times=10**6))
    code, said, seconds = run.end()
    held = [data["what"] for data in run.events(PUBLISH) if data["verified"]]
    assert code == 75, said
    assert seconds < 3.5 + 2 * busy_s(), "three and a half seconds, and what a busy machine adds"
    assert f"not published to bucket: {run.newest.name} is not published: the run was stopped" in said
    assert f"bucket holds {held[-1]}, verified" in said
    rows = {row["what"]: row["verified"] for row in run.report["published"]}
    assert rows[run.newest.name] is False
    assert run.report["destinations"][0]["last_verified_step"] == int(held[-1].partition("-")[2])
    assert not (run.output_dir / ".spool").exists()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_second_signal_stops_at_once(start: Start, stalling: FaultProxy) -> None:
    entry = {"provider": "s3", "bucket": "models", "endpoint_url": stalling.url, **KEYS}
    run = start(publishing_config=[entry], grace_seconds=90)
    run.wait_for_step(3)
    stalling.rules.append(Rule("stall", method="PUT", times=10**6))
    run.process.send_signal(signal.SIGTERM)
    run.wait_for(lambda: any(data["state"] == "uploading" for data in run.events(PUBLISH)))
    threading.Event().wait(2 * REPEAT_S)
    code, said, seconds = run.end()
    assert code == 75, said
    assert seconds < 30
    assert find_faults(run.newest) == []


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_whose_time_is_over_saves_publishes_and_can_be_resumed(start: Start, share: Path) -> None:
    run = start(max_runtime=20 + round(10 * busy_s()), grace_seconds=20)
    _, said = run.process.communicate(timeout=DEADLINE_S)
    assert run.process.returncode == 75, said
    assert run.events(STATUS)[-1]["reason"] == "time limit"
    assert run.events(METRIC), "it began to train before its time was over"
    reached = run.newest.name
    assert (share / "my run" / reached / "manifest.json").is_file()
    step = int(reached.partition("-")[2])
    again = start(max_train_steps=step + 2)
    _, said = again.process.communicate(timeout=DEADLINE_S)
    assert again.process.returncode == 0, said
    # What was trained before and after the stop is what one run would have trained.
    assert [data["step"] for data in again.events(METRIC)] == list(range(1, step + 3))


def test_a_grace_is_spent_once_and_keeps_a_little_for_leaving() -> None:
    now = [100.0]
    grace = Grace(12.0, lambda: now[0])
    assert grace.left_s == 12
    grace.begin()
    assert grace.left_s == 10
    now[0] += 4
    grace.begin("interrupted")
    assert (grace.left_s, grace.reason) == (6, "terminated")
    now[0] += 100
    assert grace.left_s == 0


def test_a_signal_that_arrives_twice_is_one_and_a_later_one_is_a_second() -> None:
    now, hurried = [0.0], []
    with Grace(10.0, lambda: now[0]) as grace:
        grace.when_hurried(lambda: hurried.append(True))
        with pytest.raises(TerminationSignal):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert not grace.hurry.is_set()
        now[0] += REPEAT_S
        signal.raise_signal(signal.SIGTERM)
    assert (grace.hurry.is_set(), grace.left_s, hurried) == (True, 0, [True])


def test_the_workers_own_signal_after_a_cancel_is_no_second_one() -> None:
    now = [0.0]
    with Grace(10.0, lambda: now[0]) as grace:
        with pytest.raises(TerminationSignal):
            grace.ask("cancelled", is_repeated=True)
            threading.Event().wait(5)
        now[0] += 3
        signal.raise_signal(signal.SIGTERM)
        assert not grace.hurry.is_set()
    assert grace.reason == "cancelled"


def test_time_that_is_over_at_once_stops_at_once() -> None:
    with Grace(10.0) as grace, pytest.raises(TerminationSignal), limited(grace, 5.0):
        threading.Event().wait(20)
    assert grace.reason == "time limit"
