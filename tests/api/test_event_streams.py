"""Events as pages, as a stream and over a WebSocket: in order, whole, and only for whom they are meant."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from flowtuner.jobs import store
from flowtuner.records.tables import Job, User

STREAM = "/api/training/events/stream"
As = Callable[[str], TestClient]


def add_job(app: FastAPI, count: int, owner: str | None = None, job_id: str = "0badcafe") -> str:
    """A job that runs, with so many events."""
    with app.state.database.writing() as session:
        user = session.query(User).filter_by(username=owner).one() if owner else None
        session.add(Job(id=job_id, user_id=user.id if user else None, status=store.RUNNING))
    add_events(app, count, job_id)
    return job_id


def add_events(app: FastAPI, count: int, job_id: str = "0badcafe") -> None:
    with app.state.database.writing() as session:
        job = session.get_one(Job, job_id)
        for _ in range(count):
            store.add_event(session, job, "training.metric", "a step", data={"number": job.last_event + 1})
            session.refresh(job)
    app.state.board.tell(job_id)


def read_sse(reply: httpx.Response) -> Iterator[dict[str, str]]:
    frame: dict[str, str] = {}
    for line in reply.iter_lines():
        if not line:
            yield frame
            frame = {}
        else:
            key, _, value = line.partition(": ")
            frame[key] = value


def take_events(address: str, count: int, *, last: str | None = None, **query: Any) -> list[dict[str, str]]:
    """So many events of a stream, which is left then."""
    headers = {"Last-Event-ID": last} if last else {}
    with httpx.stream("GET", f"{address}{STREAM}", params=query, headers=headers, timeout=10) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        frames = read_sse(reply)
        assert next(frames)["event"] == "connection"
        return [next(frames) for _ in range(count)]


def numbers(frames: list[dict[str, str]]) -> list[int]:
    return [int(frame["id"].rpartition(":")[2]) for frame in frames]


def receive(socket: ClientConnection, count: int) -> list[int]:
    return [int(json.loads(socket.recv(timeout=10))["event"]["id"]) for _ in range(count)]


def test_pages_have_no_gap_and_no_double(app: FastAPI, local: TestClient) -> None:
    add_job(app, 1203)
    seen, after = [], 0
    while True:
        page = local.get(f"/api/training/events?since_index={after}").json()
        seen += [int(event["id"]) for event in page["events"]]
        after = page["next_index"]
        if not page["has_more"]:
            break
    assert seen == list(range(1, 1204))
    assert local.get("/api/training/events?since_index=5000").json()["next_index"] == 1203


def test_without_a_job_there_are_no_events(local: TestClient) -> None:
    assert local.get("/api/training/events").json() == {"events": [], "job_id": None, "next_index": 0}


def test_a_stream_tells_what_was_and_what_comes(app: FastAPI, address: str) -> None:
    job_id = add_job(app, 3)
    with httpx.stream("GET", f"{address}{STREAM}", timeout=10) as reply:
        frames = read_sse(reply)
        assert next(frames)["event"] == "connection"
        assert numbers([next(frames) for _ in range(3)]) == [1, 2, 3]
        add_events(app, 2)
        late = [next(frames) for _ in range(2)]
    assert numbers(late) == [4, 5]
    assert late[0]["event"] == "training.metric"
    assert json.loads(late[0]["data"])["data"] == {"number": 4}
    assert json.loads(late[0]["data"])["job_id"] == job_id


def test_who_comes_back_goes_on_behind_the_last_event(app: FastAPI, address: str) -> None:
    job_id = add_job(app, 6)
    first = take_events(address, 2)
    assert numbers(take_events(address, 4, last=first[-1]["id"])) == [3, 4, 5, 6]
    assert numbers(take_events(address, 1, since_index=5, job_id=job_id)) == [6]


def test_a_long_log_comes_whole_to_late_and_early_followers(app: FastAPI, address: str) -> None:
    add_job(app, 2600)  # more than the board keeps in memory
    assert numbers(take_events(address, 2600)) == list(range(1, 2601))
    assert numbers(take_events(address, 600, since_index=0)) == list(range(1, 601))
    assert numbers(take_events(address, 10, since_index=2590)) == list(range(2591, 2601))


def test_a_stream_that_follows_whatever_runs_moves_on_to_the_next_job(app: FastAPI, address: str) -> None:
    add_job(app, 1, job_id="aaaaaaaa")
    with httpx.stream("GET", f"{address}{STREAM}", timeout=10) as reply:
        frames = read_sse(reply)
        assert [next(frames)["event"], next(frames)["id"]] == ["connection", "aaaaaaaa:1"]
        add_job(app, 1, job_id="bbbbbbbb")
        assert next(frames)["id"] == "bbbbbbbb:1"


def test_a_websocket_tells_the_same(app: FastAPI, address: str) -> None:
    job_id = add_job(app, 3)
    with connect(f"ws{address[4:]}/api/training/stream?since_index=1") as socket:
        assert receive(socket, 2) == [2, 3]
        add_events(app, 1)
        message = json.loads(socket.recv(timeout=10))
    assert (message["job_id"], message["event"]["id"]) == (job_id, "4")


@pytest.mark.parametrize("path", [STREAM, "/api/training/stream", "/api/events"])
def test_somebody_elses_job_is_refused_before_the_stream_begins(
    app: FastAPI, as_level: As, address: str, path: str
) -> None:
    as_level("lead")
    add_job(app, 2, owner="lead")
    key = make_key(as_level("researcher"))
    named = httpx.get(f"{address}{path}?job_id=0badcafe", headers=key)
    seen = httpx.get(f"{address}{path}", headers=key | {"Last-Event-ID": "0badcafe:1"})
    assert [named.status_code, seen.status_code] == [404, 404]
    assert named.json()["code"] == "job_not_found"
    with pytest.raises(InvalidStatus, match="404"):
        connect(f"ws{address[4:]}{path}?job_id=0badcafe", additional_headers=key)


def test_nobody_follows_without_credentials(app: FastAPI, as_level: As, address: str) -> None:
    as_level("admin")
    add_job(app, 1)
    assert httpx.get(f"{address}{STREAM}").status_code == 401
    with pytest.raises(InvalidStatus, match="401"):
        connect(f"ws{address[4:]}{STREAM}")


def test_everybody_sees_their_own_newest_job(app: FastAPI, as_level: As) -> None:
    lead, researcher = as_level("lead"), as_level("researcher")
    add_job(app, 1, owner="researcher", job_id="aaaaaaaa")
    add_job(app, 1, owner="lead", job_id="bbbbbbbb")
    assert researcher.get("/api/training/events").json()["job_id"] == "aaaaaaaa"
    assert lead.get("/api/training/events").json()["job_id"] == "bbbbbbbb"
    assert lead.get("/api/training/events?job_id=aaaaaaaa").status_code == 200
    assert researcher.get("/api/training/events?job_id=bbbbbbbb").status_code == 404


def make_key(client: TestClient) -> dict[str, str]:
    return {"X-API-Key": client.post("/api/auth/api-keys", json={"name": "test"}).json()["key"]}
