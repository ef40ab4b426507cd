"""Runs on other machines send their events: each arrives once, in order, whatever happens to the line."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from flowtuner.engine import events
from flowtuner.engine.events import EventLog
from flowtuner.jobs import store
from flowtuner.jobs.tokens import RunTokens
from flowtuner.records.tables import Job
from flowtuner.telling import delivery
from flowtuner.telling.delivery import HOST, TOKEN, URL, Delivery
from tests.api.conftest import serve

JOB, RUN = "0badcafe", "run-1"


@pytest.fixture
def away(app: FastAPI, local: TestClient) -> dict[str, str]:
    """What a run on another machine is started with; nobody listens there yet."""
    with app.state.database.writing() as session:
        session.add(Job(id=JOB, status=store.RUNNING, flow_run_id=RUN, attempt=1))
    given = RunTokens(app.state.database, "http://localhost:9").environment_of(JOB)
    assert given[HOST]
    return given | {HOST: "the-server"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(delivery, "POLL_S", 0.02)


def send(environ: dict[str, str], log: EventLog, address: str) -> tuple[Delivery, threading.Thread]:
    url = environ[URL].replace("http://localhost:9", address)
    sender = Delivery.of(environ | {URL: url}, "elsewhere", log)
    assert sender is not None
    thread = threading.Thread(target=sender.send_all, daemon=True)
    thread.start()
    return sender, thread


def taken(local: TestClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = local.get(f"/api/training/events?job_id={JOB}").json()["events"]
    return found


def post(address: str, token: str, run: str = RUN, **event: Any) -> httpx.Response:
    body = {"run": run, "events": [{"seq": 1, "time": 0.0, "type": "notification", "data": {}} | event]}
    return httpx.post(f"{address}/api/runs/{JOB}/events", json=body, headers={"Authorization": f"Bearer {token}"})


def test_events_arrive_once_and_in_order_across_an_outage(
    app: FastAPI, local: TestClient, away: dict[str, str], tmp_path: Path
) -> None:
    picture = tmp_path / "kite.png"
    Image.new("RGB", (8, 8), "red").save(picture)
    with EventLog(tmp_path / "far" / "events.jsonl", RUN) as log:
        with serve(app) as address:
            sender, thread = send(away, log, address)
            log.append(events.VALIDATION, {"step": 1, "images": [str(picture)], "prompts": ["a kite"]})
            deadline = time.monotonic() + 10
            while not taken(local) and time.monotonic() < deadline:
                time.sleep(0.02)
        for step in range(1200):  # nobody listens now: more than one request holds
            log.append(events.METRIC, {"step": step, "loss": 1.0})
        time.sleep(0.3)
        with serve(app) as address:
            sender.url = f"{address}/api/runs/{JOB}/events"
            sender.stop.set()
            thread.join(20)
    assert not thread.is_alive()
    pages, after = [], 0
    while page := local.get(f"/api/training/events?job_id={JOB}&since_index={after}").json()["events"]:
        pages += page
        after = int(page[-1]["id"])
    assert [event["type"] for event in pages[:2]] == ["training.validation", "training.metric"]
    assert pages[0]["images"][0]["src"].startswith("data:image/png;base64,")
    assert [event["data"]["step"] for event in pages[1:]] == list(range(1200))


def test_what_comes_again_is_not_added_again(app: FastAPI, local: TestClient, away: dict[str, str]) -> None:
    notice = {"data": {"severity": "info", "message": "hello"}}
    with serve(app) as address:
        for _ in range(3):
            assert post(address, away[TOKEN], **notice).json() == {"last_source": 1}
        assert post(address, away[TOKEN], seq=2, **notice).json() == {"last_source": 2}
    assert [event["message"] for event in taken(local)] == ["hello", "hello"]


def test_only_the_jobs_own_run_may_tell(app: FastAPI, local: TestClient, away: dict[str, str]) -> None:
    notice = {"data": {"severity": "info", "message": "hello"}}
    with serve(app) as address:
        assert post(address, "nothing", **notice).status_code == 401
        assert post(address, RunTokens(app.state.database, "x").token_of("deadbeef"), **notice).status_code == 401
        assert post(address, away[TOKEN], run="run-0", **notice).json()["code"] == "another_run"
        assert post(address, away[TOKEN], data={}).json()["code"] == "broken_event"
        escape = [{"name": "../../x.sh", "data": "aGk="}]
        assert post(address, away[TOKEN], pictures=escape, **notice).json()["code"] == "broken_event"
    assert taken(local) == []


def test_another_machine_counts_from_one_again(app: FastAPI, local: TestClient, away: dict[str, str]) -> None:
    notice = {"data": {"severity": "info", "message": "hello"}}
    with serve(app) as address:
        assert post(address, away[TOKEN], **notice).status_code == 200
        with app.state.database.writing() as session:
            job = session.get_one(Job, JOB)
            job.flow_run_id, job.attempt, job.last_source = "run-2", 2, 0
        assert post(address, away[TOKEN], run="run-2", **notice).json() == {"last_source": 1}
    assert len(taken(local)) == 2


def test_a_run_on_the_servers_own_machine_sends_nothing(away: dict[str, str], tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl", RUN) as log:
        assert Delivery.of(away, "the-server", log) is None
        assert Delivery.of({}, "elsewhere", log) is None
