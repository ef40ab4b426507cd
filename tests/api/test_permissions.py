"""Who may do what: every route, asked by everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from flowtuner.api.auth.permissions import LEVELS
from flowtuner.jobs import store
from flowtuner.records.tables import Job, User
from tests.api.conftest import PASSWORD

As = Callable[[str], TestClient]
PUBLIC = "everybody"
KNOWN = "whoever is known"
TOKEN = "whoever has the token of the job"
AUTH = {
    "GET /setup/status": PUBLIC,
    "POST /setup/first-admin": PUBLIC,
    "POST /login": PUBLIC,
    "POST /logout": PUBLIC,
    "POST /register": PUBLIC,
    "GET /check": PUBLIC,
    "GET /me": KNOWN,
    "PUT /registration": "admin.users",
    "GET /levels": "admin.levels",
    "GET /permissions": "admin.levels",
    "GET /api-keys": "api.keys.own",
    "POST /api-keys": "api.keys.own",
    "DELETE /api-keys/{key_id}": "api.keys.own",
}
TABLE = {
    "GET /": PUBLIC,
    "GET /docs": PUBLIC,
    "GET /redoc": PUBLIC,
    "GET /favicon.ico": PUBLIC,
    "GET /health": PUBLIC,
    "GET /ready": PUBLIC,
    "GET /api/system/status": "system.view",
    "POST /api/system/shutdown": "system.shutdown",
    "GET /api/users": "admin.users",
    "POST /api/users": "admin.users",
    "GET /api/users/{user_id}": "admin.users",
    "PATCH /api/users/{user_id}": "admin.users",
    "DELETE /api/users/{user_id}": "admin.users",
    "GET /api/configs": "config.view",
    "GET /api/configs/": "config.view",
    "GET /api/configs/examples": "config.view",
    "GET /api/configs/active": "config.view",
    "POST /api/configs/": "config.create",
    "POST /api/configs/import": "config.create",
    "POST /api/configs/environments": "config.create",
    "GET /api/configs/{name}": "config.view",
    "PUT /api/configs/{name}": "config.edit.own",
    "DELETE /api/configs/{name}": "config.delete.own",
    "POST /api/configs/{name}/activate": "config.edit.own",
    "GET /api/configs/{name}/dataloader": "config.view",
    "POST /api/configs/{name}/dataloader": "config.edit.own",
    "PUT /api/configs/{name}/dataloader": "config.edit.own",
    "GET /api/configs/{name}/export": "config.view",
    "POST /api/configs/{name}/copy": "config.create",
    "POST /api/configs/{name}/rename": "config.edit.own",
    "POST /api/configs/{name}/validate": "config.view",
    "GET /api/datasets/folders": "dataset.view",
    "POST /api/datasets/folders": "dataset.upload",
    "POST /api/datasets/upload": "dataset.upload",
    "POST /api/datasets/upload/zip": "dataset.upload",
    "POST /api/training/validate": "config.view",
    "POST /api/training/configuration/check": "config.view",
    "POST /api/training/start": "job.submit",
    "POST /api/training/configuration/run": "job.submit",
    "GET /api/training/status": "job.view.own",
    "GET /api/training/config": "job.view.own",
    "POST /api/training/stop": "job.cancel.own",
    "POST /api/training/cancel": "job.cancel.own",
    "GET /api/training/summary": "job.view.own",
    "GET /api/training/checkpoints": "job.view.own",
    "POST /api/training/checkpoints": "job.view.own",
    "POST /api/training/validation/run": "job.cancel.own",
    "POST /api/training/checkpoint/run": "job.cancel.own",
    "GET /api/training/events": "job.view.own",
    "GET /api/training/events/stream": "job.view.own",
    "WS /api/training/events/stream": "job.view.own",
    "GET /api/training/stream": "job.view.own",
    "WS /api/training/stream": "job.view.own",
    "GET /api/events": "job.view.own",
    "WS /api/events": "job.view.own",
    "POST /api/queue/submit": "job.submit",
    "GET /api/queue/stats": "queue.view",
    "GET /api/queue": "queue.view",
    "GET /api/queue/me": "queue.view",
    "GET /api/queue/position/{job_id}": "queue.view",
    "GET /api/queue/concurrency": "queue.manage",
    "POST /api/queue/concurrency": "queue.manage",
    "POST /api/queue/{job_id}/cancel": "job.cancel.own",
    "POST /api/queue/{job_id}/priority": "queue.manage",
    "GET /api/admin/workers": "admin.workers",
    "POST /api/runs/{job_id}/events": TOKEN,
    "GET /api/cloud/jobs": "job.view.own",
    "GET /api/cloud/jobs/{job_id}": "job.view.own",
    "POST /api/cloud/jobs/{job_id}/cancel": "job.cancel.own",
    "POST /api/cloud/jobs/{job_id}/retry": "job.submit",
    "DELETE /api/cloud/jobs/{job_id}": "job.delete.own",
    **{
        f"{way.replace(' /', f' {prefix}/', 1)}": who
        for prefix in ("/api/auth", "/api/cloud/auth")
        for way, who in AUTH.items()
    },
}
# What a level may do, written down once more: a change of the permissions has to be made twice.
VIEWER = {KNOWN, "system.view", "config.view", "dataset.view", "job.view.own"}
RESEARCHER = VIEWER | {
    "config.create",
    "config.edit.own",
    "config.delete.own",
    "dataset.upload",
    "job.submit",
    "job.cancel.own",
    "job.delete.own",
    "queue.view",
    "api.keys.own",
}
MAY = {
    "nobody": set(),
    "viewer": VIEWER,
    "researcher": RESEARCHER,
    "lead": RESEARCHER,
    "admin": {*TABLE.values()} - {TOKEN},
    "key": {KNOWN, "config.view"},
}
BODY = {"run": "", "events": []}
FILLED = {"{name}": "nothing", "{user_id}": "99999", "{key_id}": "99999", "{job_id}": "0badcafe"}


@pytest.fixture
def asked(app: FastAPI, as_level: As, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, TestClient]]:
    """Everybody; the key is an administrator's, for looking at configurations alone."""
    monkeypatch.setattr("flowtuner.api.routes.system.os.kill", lambda *signal: None)
    monkeypatch.setattr(app.state.limiter, "count", lambda *attempt: None)
    clients = {level: as_level(level) for level in LEVELS}
    app.state.closing.set()  # streams end at once
    scope = {"name": "narrow", "scoped_permissions": ["config.view"]}
    key = clients["admin"].post("/api/auth/api-keys", json=scope).json()["key"]
    for who, headers in (("key", {"X-API-Key": key}), ("nobody", {})):
        clients[who] = TestClient(app, base_url="http://localhost:8001", client=("127.0.0.1", 5003), headers=headers)
    return clients


def ask(client: TestClient, method: str, path: str) -> int:
    for name, value in FILLED.items():
        path = path.replace(name, value)
    if method != "WS":
        return client.request(method, path, json=BODY if method in ("POST", "PUT", "PATCH") else None).status_code
    try:
        with client.websocket_connect(f"ws://localhost:8001{path}"):
            return 200
    except WebSocketDenialResponse as refusal:
        return refusal.status_code


def ways(app: FastAPI) -> set[str]:
    found = {f"WS {route.path}" for route in app.routes if isinstance(route, APIWebSocketRoute)}
    for route in app.routes:
        if isinstance(route, APIRoute):
            found |= {f"{method} {route.path}" for method in route.methods}
    return found


def test_every_route_has_its_line_in_the_table(app: FastAPI) -> None:
    assert ways(app) == set(TABLE)


def test_everybody_gets_what_the_table_says_and_nothing_more(asked: dict[str, TestClient]) -> None:
    wrong = []
    for who, client in asked.items():
        for way, needed in TABLE.items():
            # Logging out would end what is asked next.
            status = ask(client, *way.split(" ")) if "logout" not in way else 200
            is_let_in = status not in (401, 403) or way.endswith(("/login", "/register"))
            if is_let_in is not (needed == PUBLIC or needed in MAY[who]):
                wrong.append(f"{who}: {way} -> {status}")
            if who == "nobody" and needed != PUBLIC and status != 401:
                wrong.append(f"{who}: {way} -> {status}, not 401")
    assert not wrong, "\n".join(wrong)


JOB_READS = ("status", "config", "checkpoints", "events")


def test_a_job_is_its_owners(app: FastAPI, as_level: As) -> None:
    researcher, lead, admin = (as_level(level) for level in ("researcher", "lead", "admin"))
    other = as_level("viewer")
    with app.state.database.writing() as session:
        owner = session.query(User).filter_by(username="researcher").one()
        session.add(Job(id="0badcafe", user_id=owner.id, status=store.QUEUED))
    for path in JOB_READS:
        statuses = [
            client.get(f"/api/training/{path}?job_id=0badcafe").status_code
            for client in (researcher, lead, admin, other)
        ]
        assert statuses == [200, 200, 200, 404], path
        assert "0badcafe" not in other.get(f"/api/training/{path}").text
    second = {"email": "b@example.com", "username": "second", "password": PASSWORD}
    assert admin.post("/api/users", json=second).status_code == 201
    rival = TestClient(app, base_url="http://localhost:8001", client=("127.0.0.1", 5004))
    assert rival.post("/api/auth/login", json=second).status_code == 200
    assert rival.get("/api/queue/position/0badcafe").status_code == 404
    assert rival.get("/api/cloud/jobs/0badcafe").status_code == 404
    assert rival.get("/api/queue").json()["entries"] == rival.get("/api/cloud/jobs").json()["jobs"] == []
    for client, status in ((rival, 404), (lead, 403)):  # a lead sees everybody's jobs and steers none but their own
        assert client.post("/api/queue/0badcafe/cancel").status_code == status
        for path in ("stop", "cancel"):
            assert client.post(f"/api/training/{path}", data={"job_id": "0badcafe"}).status_code == status, path
        assert client.delete("/api/cloud/jobs/0badcafe").status_code == status
        assert client.post("/api/cloud/jobs/0badcafe/retry").status_code == status
    assert researcher.delete("/api/cloud/jobs/0badcafe").json()["code"] == "job_under_way"
    assert researcher.post("/api/queue/0badcafe/cancel").json()["status"] == "cancelled"
    assert researcher.post("/api/cloud/jobs/0badcafe/retry").json()["status"] == "queued"
    assert researcher.delete("/api/cloud/jobs/0badcafe").status_code == 200
    assert researcher.get("/api/cloud/jobs/0badcafe").status_code == 404


def test_whoever_may_not_start_a_run_learns_nothing_of_the_machines_variables(
    as_level: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "canary-in-a-coal-mine")
    form = {"--model_family": "{env:CANARY}"}
    seen = as_level("viewer").post("/api/training/validate", data=form, headers={"Accept": "application/json"})
    assert seen.status_code == 422
    assert "canary-in" not in seen.text
    assert "canary-in" in as_level("researcher").post("/api/training/validate", data=form).text
