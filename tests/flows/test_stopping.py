"""Stopping a run: cancelled or preempted, it saves, frees the engine and says where the checkpoint is."""

from __future__ import annotations

import contextvars
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import CancelledRun, TerminationSignal
from prefect.states import Cancelling, Crashed

from flows.crash import report_cancellation, report_crash
from flows.train import train
from flowtuner.engine.checkpoints import find_faults, list_checkpoints
from flowtuner.engine.events import METRIC, STATUS, EventLog, follow_events, read_events

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def slow_run(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("FAKE_ENGINE", "slow")
    return options | {"max_train_steps": 1000, "checkpoint_step_interval": 500, "validation_disable": True}


@pytest.fixture
def caught_signals() -> Iterator[list[int]]:
    """What the process that called the flow gets to hear of a SIGTERM; by default it would end there."""
    caught: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
    yield caught
    signal.signal(signal.SIGTERM, before)


def log_of(options: dict[str, Any]) -> Path:
    return Path(options["output_dir"]) / "logs/events.jsonl"


def act_at_step(step: int, log: Path, act: Callable[[str], None]) -> threading.Thread:
    """Waits in a thread until training has come to a step, then acts on the run."""

    def watch() -> None:
        for event in follow_events(log, 0, threading.Event(), poll_s=0.02):
            if event.type == METRIC and event.data["step"] >= step:
                act(event.run)
                return

    thread = threading.Thread(target=contextvars.copy_context().run, args=(watch,), daemon=True)
    thread.start()
    return thread


def assert_saved(options: dict[str, Any], status: str) -> None:
    newest = list_checkpoints(Path(options["output_dir"]))[-1]
    assert find_faults(newest) == []
    last = [event.data for event in read_events(log_of(options)) if event.type == STATUS][-1]
    assert last["status"] == status
    assert last["checkpoint"] == str(newest)
    assert str(newest) in last["message"]


def test_a_run_cancelled_in_the_ui_saves_and_ends_as_cancelled(slow_run: dict[str, Any]) -> None:
    cancelled_at: list[float] = []

    def cancel(run_id: str) -> None:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run_id, Cancelling(), force=True)  # type: ignore[arg-type]
        cancelled_at.append(time.monotonic())

    act_at_step(5, log_of(slow_run), cancel)
    state = train(config=slow_run, return_state=True)
    assert time.monotonic() - cancelled_at[0] < 15
    assert state.is_cancelled()
    assert "Start it again with the same options" in str(state.message)
    with pytest.raises(CancelledRun):
        state.result()
    assert_saved(slow_run, "cancelled")


def test_a_preempted_run_saves_and_says_where(slow_run: dict[str, Any], caught_signals: list[int]) -> None:
    act_at_step(5, log_of(slow_run), lambda run_id: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(TerminationSignal):
        train(config=slow_run)
    assert caught_signals == [signal.SIGTERM]
    assert_saved(slow_run, "preempted")


@pytest.mark.parametrize(("report", "status"), [(report_crash, "failed"), (report_cancellation, "cancelled")])
def test_a_run_whose_process_was_killed_is_told_about_once(
    slow_run: dict[str, Any], report: Callable[..., None], status: str
) -> None:
    log = EventLog(log_of(slow_run), "2b3c1c8e-0000-4000-8000-000000000001")
    log.append(STATUS, {"status": "running", "message": ""})
    log.close()
    run = FlowRun(id=log.run, flow_id=log.run, name="killed", parameters={"config": slow_run})  # type: ignore[arg-type]
    for _ in range(2):
        report(flow=train, flow_run=run, state=Crashed())
    statuses = [event.data for event in read_events(log_of(slow_run)) if event.type == STATUS]
    assert [each["status"] for each in statuses] == ["running", status]
    assert "before the first checkpoint" in statuses[1]["message"]
