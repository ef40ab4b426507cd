"""The Python client and `flowtuner jobs` against a real server, whose jobs wait because nobody runs them."""

from __future__ import annotations

import ast
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from flowtuner.cli.main import main
from flowtuner.client import Client, Refused, Unreachable
from flowtuner.client import client as client_module
from flowtuner.client.connection import ServerPlace
from flowtuner.jobs import store
from flowtuner.records.tables import Job
from tests.conftest import draw_pictures


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


@pytest.fixture
def kites(client: Client, tiny_run: dict[str, Any]) -> str:
    """An environment that could be trained."""
    client.create_environment("kites", "pixart_sigma")
    client.replace_environment("kites", tiny_run)
    return "kites"


def move(app: FastAPI, job_id: str, *statuses: str) -> None:
    for status in statuses:
        with app.state.database.writing() as session:
            assert store.move(session, session.get_one(Job, job_id), status)
        app.state.board.tell(job_id)


def test_environments_are_made_read_and_checked(client: Client, kites: str) -> None:
    assert {"default", kites} <= set(client.list_environments())
    assert client.read_environment(kites)["max_train_steps"] == 6
    assert client.check_environment(kites).is_valid
    client.replace_environment(kites, {"model_family": "pixart_sigma", "learning_rate": "fast"})
    verdict = client.check_environment(kites)
    assert not verdict.is_valid
    assert any(error.startswith("learning_rate") for error in verdict.errors)


def test_options_are_checked_without_an_environment(client: Client, tiny_run: dict[str, Any]) -> None:
    assert client.check(tiny_run).is_valid
    assert not client.check(tiny_run | {"model_family": "painting"}).is_valid


def test_files_are_uploaded(client: Client, tmp_path: Path) -> None:
    pictures = sorted(draw_pictures(tmp_path / "mine", 3).iterdir())
    client.create_folder("kites")
    assert client.upload("kites", pictures) == 3
    assert {path.name for path in (tmp_path / "datasets" / "kites").iterdir()} == {path.name for path in pictures}


def test_a_job_is_followed_to_its_end(app: FastAPI, client: Client, kites: str) -> None:
    done = client.submit(kites)
    assert client.read_queue().total_pending == 1
    seen: list[int] = []
    follower = threading.Thread(target=lambda: seen.extend(event.number for event in client.follow(done.job_id)))
    follower.start()
    for status in (store.STARTING, store.RUNNING, store.COMPLETED):
        time.sleep(0.3)
        move(app, done.job_id, status)
    follower.join(20)
    assert not follower.is_alive()
    assert seen == [1, 2, 3, 4]
    assert client.read_status(done.job_id).is_over
    again = client.retry(done.job_id)
    assert client.read_job(again.job_id).status == "queued"
    client.delete(done.job_id)
    with pytest.raises(Refused) as refusal:
        client.read_job(done.job_id)
    assert (refusal.value.status, refusal.value.code) == (404, "job_not_found")


def test_no_server_is_said_in_one_line() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(Unreachable, match="simpletuner server"):
        client._connection.ask("POST", "/api/queue/submit")


@pytest.mark.parametrize(
    ("environ", "url", "verifies"),
    [
        ({}, "http://localhost:8001", True),
        ({"SIMPLETUNER_HOST": "0.0.0.0", "SIMPLETUNER_PORT": "9"}, "http://localhost:9", True),
        ({"SIMPLETUNER_SSL_ENABLED": "true", "SIMPLETUNER_SSL_NO_VERIFY": "1"}, "https://localhost:8001", False),
    ],
)
def test_the_environment_says_where_the_server_is(environ: dict[str, str], url: str, verifies: bool) -> None:
    place = ServerPlace.from_environment(environ)
    assert (place.url, place.verifies) == (url, verifies)


def test_every_call_is_in_the_document(app: FastAPI) -> None:
    """The client's own words for methods and paths, against what the server documents."""
    documented = {(method.upper(), path) for path, ways in app.openapi()["paths"].items() for method in ways}
    asked = set()
    for node in ast.walk(ast.parse(Path(client_module.__file__).read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "ask":
            method, path = node.args
            asked.add((ast.literal_eval(method), _template(path)))
    patterns = {(method, _blank(path)) for method, path in documented}
    assert len(asked) > 15
    assert {each for each in asked if each not in patterns} == set()


def _template(node: Any) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return text.replace("/api/training/{}/run", "/api/training/validation/run")


def _blank(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


@pytest.fixture
def command(address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("SIMPLETUNER_PORT", address.rpartition(":")[2])

    def call(*words: str) -> tuple[int, str]:
        code = main(["jobs", *words])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def test_jobs_are_handed_in_and_looked_after(app: FastAPI, kites: str, command: Any) -> None:
    code, said = command("submit", kites, "--dry-run")
    assert (code, "can be trained. Before it: 0 jobs" in said) == (0, True)
    code, said = command("submit", kites)
    assert code == 0 and "Job submitted successfully!" in said
    job_id = said.split("Job ID: ")[1].split()[0]
    code, said = command("submit", kites, "--no-wait")
    assert (code, "Maximum concurrent local jobs (1) reached" in said) == (1, True)
    assert job_id in command("list")[1]
    assert json.loads(command("get", job_id)[1])["status"] == "queued"
    assert command("validate")[0] == 1  # nothing runs
    assert "cancelled" in command("cancel", job_id)[1]
    assert f"Job {job_id} queued" in command("logs", job_id)[1]
    assert command("logs", job_id, "-f")[0] == 75
    assert command("purge")[0] == 1
    assert command("purge", "--yes")[0] == 0
    assert job_id not in command("list")[1]


def test_what_is_wrong_is_one_line_and_a_code(kites: str, command: Any, client: Client) -> None:
    code, said = command("submit", "dragons")
    assert (code, "Configuration 'dragons' not found" in said) == (1, True)
    client.replace_environment(kites, {"model_family": "pixart_sigma"})
    code, said = command("submit", kites, "--dry-run")
    assert code == 2 and "cannot be trained" in said
