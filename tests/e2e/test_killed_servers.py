"""kill -9 of the API's server, of Prefect's, of the worker and of the run itself: nothing is lost or told twice."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowtuner.cli.processes import RUN, find_processes
from flowtuner.cli.worker import MARK
from tests.conftest import tiny_options
from tests.e2e.test_tutorial import OVER, serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STEPS = 1500


class Api:
    """Asks a server that may be away for a while."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, body: dict[str, Any] | None = None, patience_s: float = 60) -> Any:
        deadline = time.monotonic() + patience_s
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        while True:
            try:
                with urllib.request.urlopen(
                    urllib.request.Request(self.url + path, data, headers), timeout=20
                ) as reply:
                    return json.load(reply)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def step(self) -> int:
        return int((self.ask("/api/training/status")["progress"] or {}).get("step", 0))

    def wait_for_step(self, step: int, timeout_s: float = 200) -> None:
        deadline = time.monotonic() + timeout_s
        while self.step() < step:
            status = self.ask("/api/training/status")
            assert time.monotonic() < deadline and status["status"] not in OVER, status
            time.sleep(0.5)

    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while page := self.ask(f"/api/training/events?since_index={len(found)}")["events"]:
            found += page
        return found


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path, pictures: Path) -> Path:
    values = tiny_options(tmp_path, tiny_model, pictures)
    values |= {"max_train_steps": STEPS, "checkpoint_step_interval": 100, "checkpoints_total_limit": 2}
    values |= {"output_dir": str(tmp_path / "run"), "ephemeral": "no"}
    folder = tmp_path / "config" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(values))
    return tmp_path


@pytest.fixture
def server(place: Path) -> Iterator[serve]:
    served = serve(place)
    with served:
        yield served


def api_url_of(place: Path) -> str:
    record = json.loads((place / "home" / "server" / "server.json").read_text())
    return f"http://127.0.0.1:{record['port']}/api"


def check_whole(api: Api, place: Path) -> list[int]:
    deadline = time.monotonic() + 400
    while (status := api.ask("/api/training/status"))["status"] not in OVER:
        assert time.monotonic() < deadline, status
        time.sleep(1)
    assert status["status"] == "completed", status
    assert status["progress"]["step"] == STEPS
    events = api.events()
    assert [int(event["id"]) for event in events] == list(range(1, len(events) + 1))
    logged = [json.loads(line) for line in (place / "run/logs/events.jsonl").read_text().splitlines()]
    steps = [event["data"]["step"] for event in events if event["type"] == "training.metric"]
    assert steps == [event["data"]["step"] for event in logged if event["type"] == "training.metric"]
    return steps


def begin(server: serve) -> Api:
    api = Api(server.port)
    submitted = api.ask("/api/queue/submit", {"config_name": "mine"})
    assert submitted["success"], submitted
    api.wait_for_step(60)
    return api


def test_the_prefect_server_is_killed(server: serve, place: Path) -> None:
    api = begin(server)
    record = json.loads((place / "home" / "server" / "server.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)
    began = time.monotonic()
    api.wait_for_step(api.step() + 30)
    assert api.ask("/ready", patience_s=60)["status"] == "ready"
    assert time.monotonic() - began < 60
    assert check_whole(api, place) == list(range(1, STEPS + 1))


def test_the_worker_is_killed(server: serve, place: Path) -> None:
    api = begin(server)
    [worker] = find_processes(MARK, api_url_of(place))
    os.kill(worker, signal.SIGKILL)
    api.wait_for_step(api.step() + 30)
    assert check_whole(api, place) == list(range(1, STEPS + 1))
    assert api.ask("/api/queue/submit", {"config_name": "mine"})["success"]  # the new one takes jobs too


def test_the_run_itself_is_killed(server: serve, place: Path) -> None:
    api = begin(server)
    [run] = find_processes(RUN, api_url_of(place))
    os.kill(run, signal.SIGKILL)
    steps = check_whole(api, place)
    assert steps[0] == 1 and steps[-1] == STEPS  # what the engine said to a dead run nobody wrote down
    assert api.ask("/api/training/status")["job_info"]["attempt"] == 2


def test_the_server_is_killed(server: serve, place: Path) -> None:
    api = begin(server)
    server.process.kill()
    server.process.wait()
    before = time.monotonic()
    server.__enter__()
    assert time.monotonic() - before < 60
    status = api.ask("/api/training/status")
    assert status["status"] in ("running", "starting"), status
    api.wait_for_step(api.step() + 30)
    assert len(find_processes(MARK, api_url_of(place))) == 1
    assert check_whole(api, place) == list(range(1, STEPS + 1))
