"""Deployments on an ordinary Prefect process worker: run, cancelled, and cancelled after the worker was killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling

from flowtuner.engine.checkpoints import find_faults, list_checkpoints
from flowtuner.engine.events import METRIC, follow_events
from flowtuner.jobs.deploy import deploy
from flowtuner.jobs.deployments import DEPLOYMENTS, WORK_POOL

pytestmark = pytest.mark.usefixtures("prefect_api")
ROOT = Path(__file__).parents[2]


def test_prefect_yaml_says_what_deploy_does() -> None:
    written = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert [
        (each["name"], each["entrypoint"], each["description"], tuple(each["tags"]), each.get("schedules"))
        for each in written
    ] == [
        (
            each.name,
            each.entrypoint,
            each.description,
            each.tags,
            [{"cron": each.cron, "timezone": "UTC", "active": False, "slug": each.name}] if each.cron else None,
        )
        for each in DEPLOYMENTS
    ]
    assert all(each["work_pool"]["job_variables"]["stream_output"] is False for each in written)


def test_deploying_twice_changes_nothing_that_somebody_set(tmp_path: Path) -> None:
    first = deploy(tmp_path)
    assert first.deployments == ("train/train", "cache/cache", "publish/publish", "train/retrain")
    assert "flowtuner-folder" in first.block_types
    with get_client(sync_client=True) as client:
        retrain = client.read_deployment_by_name("train/retrain")
        assert [schedule.active for schedule in retrain.schedules] == [False]
        client.update_deployment_schedule(retrain.id, retrain.schedules[0].id, active=True)
        deploy(tmp_path)
        again = client.read_deployment_by_name("train/retrain")
        assert [(schedule.active, schedule.slug) for schedule in again.schedules] == [(True, "retrain")]
        form = again.parameter_openapi_schema or {}
    options = form["properties"]["config"]
    assert options["properties"]["learning_rate"]["type"] == "number"
    assert (options["additionalProperties"], options["required"]) == (True, [])


@pytest.fixture
def worker(options: dict[str, Any], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    deploy(tmp_path)
    environment = dict(os.environ) | {
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PYTHONPATH": f"{os.environ['PYTHONPATH']}:{ROOT}",
        "FAKE_ENGINE": "slow",
    }
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", WORK_POOL, "--type", "process"]
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for_state(run_id: UUID, names: set[str], timeout_s: float = 90) -> FlowRun:
    deadline = time.monotonic() + timeout_s
    with get_client(sync_client=True) as client:
        while True:
            run = client.read_flow_run(run_id)
            if run.state and run.state.name in names:
                return run
            assert time.monotonic() < deadline, f"still {run.state}"
            threading.Event().wait(0.2)


def wait_for_step(step: int, log: Path, timeout_s: float = 60) -> None:
    stop = threading.Event()
    timer = threading.Timer(timeout_s, stop.set)
    timer.start()
    reached = any(
        event.type == METRIC and event.data["step"] >= step for event in follow_events(log, 0, stop, poll_s=0.1)
    )
    timer.cancel()
    assert reached


def engines_of(output_dir: Path) -> list[str]:
    """The engine processes that still work for an output folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # gone meanwhile
            lines.append(path.read_bytes().replace(b"\0", b" ").decode())
    return [line for line in lines if "flowtuner.engine.worker" in line and str(output_dir) in line]


def wait_until_gone(output_dir: Path, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while engines_of(output_dir) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert engines_of(output_dir) == []


def cancel(run_id: UUID) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, Cancelling(), force=True)


@pytest.mark.slow
@pytest.mark.usefixtures("worker")
def test_another_flow_or_script_runs_the_deployment(options: dict[str, Any], share: Path) -> None:
    run = run_deployment("train/train", parameters={"config": options}, timeout=100)
    assert run.state is not None and run.state.is_completed()
    assert (share / "my run/manifest.json").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("worker")
def test_the_command_line_runs_the_deployment(options: dict[str, Any], share: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "prefect", "deployment", "run", "train/train", "--watch"]
    command += ["-p", f"config={json.dumps(options)}"]
    environment = dict(os.environ) | {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
    subprocess.run(command, env=environment, check=True, timeout=110, cwd=tmp_path)
    assert (share / "my run/manifest.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("is_worker_killed", [False, True])
def test_cancelling_saves_and_frees_the_engine(
    options: dict[str, Any], worker: subprocess.Popen[bytes], is_worker_killed: bool
) -> None:
    values = options | {"max_train_steps": 10_000, "checkpoint_step_interval": 5_000, "validation_disable": True}
    run = run_deployment("train/train", parameters={"config": values}, timeout=0)
    output_dir = Path(options["output_dir"])
    wait_for_step(5, output_dir / "logs/events.jsonl")
    if is_worker_killed:
        os.kill(worker.pid, signal.SIGKILL)
    cancelled_at = time.monotonic()
    cancel(run.id)
    ended = wait_for_state(run.id, {"Cancelled"}, timeout_s=30)
    assert time.monotonic() - cancelled_at < 15
    assert ended.state is not None
    newest = list_checkpoints(output_dir)[-1]
    assert find_faults(newest) == []
    assert engines_of(output_dir) == []


@pytest.mark.slow
@pytest.mark.usefixtures("worker")
def test_a_run_whose_process_is_killed_crashes_and_its_engine_saves(options: dict[str, Any]) -> None:
    values = options | {"max_train_steps": 10_000, "checkpoint_step_interval": 5_000, "validation_disable": True}
    run = run_deployment("train/train", parameters={"config": values}, timeout=0)
    output_dir = Path(options["output_dir"])
    wait_for_step(5, output_dir / "logs/events.jsonl")
    (engine,) = engines_of(output_dir)
    os.kill(int(engine.split()[-1]), signal.SIGKILL)  # the engine is told whose child it is
    wait_for_state(run.id, {"Crashed"}, timeout_s=60)
    told = (event.data for event in follow_events(output_dir / "logs/events.jsonl", 0, threading.Event()))
    last = next(data for data in told if data.get("status") == "failed")
    wait_until_gone(output_dir)  # it saves on its own, after its flow
    assert last["message"]
    assert find_faults(list_checkpoints(output_dir)[-1]) == []
