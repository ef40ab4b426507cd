"""What strangers, browsers and large bodies meet before any route."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient

from flowtuner.api.app import create_app
from flowtuner.api.protection import BODY_BYTES
from flowtuner.api.settings import ServerSettings

As = Callable[[str], TestClient]


@pytest.mark.parametrize("path", ["/", "/health", "/api/training/status", "/no/such/place", "/static/page.js"])
def test_every_answer_has_a_policy_for_browsers(local: TestClient, path: str) -> None:
    headers = local.get(path).headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"


def test_a_body_that_is_too_large_is_refused_whole_or_in_pieces(local: TestClient) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(BODY_BYTES // (1 << 20) + 2):
            yield b" " * (1 << 20)

    told = local.post("/api/configs/", content=b" " * (BODY_BYTES + 1), headers={"Content-Type": "application/json"})
    untold = local.post("/api/configs/", content=pieces(), headers={"Content-Type": "application/json"})
    for reply in (told, untold):
        assert (reply.status_code, reply.json()["code"]) == (413, "request_too_large")


def test_other_sites_may_read_only_where_they_are_allowed(local: TestClient) -> None:
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-api-key"}
    friend = local.options("/api/training/status", headers=asked | {"Origin": "http://localhost:3000"})
    stranger = local.options("/api/training/status", headers=asked | {"Origin": "https://evil.example.com"})
    assert friend.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert friend.headers["access-control-allow-credentials"] == "true"
    assert "access-control-allow-origin" not in stranger.headers


def test_strangers_may_only_ask_so_often_and_friends_as_often_as_they_like(
    settings: ServerSettings, as_level: As
) -> None:
    key = as_level("admin").post("/api/auth/api-keys", json={"name": "often"}).json()["key"]
    app = create_app(dataclasses.replace(settings, rate_limit_calls=5))
    with TestClient(app, base_url="http://training.example.com", client=("192.0.2.7", 5000)) as stranger:
        statuses = [stranger.get("/api/training/status").status_code for _ in range(7)]
        assert statuses == [401] * 5 + [429] * 2
        assert int(stranger.get("/api/training/status").headers["Retry-After"]) > 0
        friend = {"X-API-Key": key}
        assert {stranger.get("/api/training/status", headers=friend).status_code for _ in range(20)} == {200}
        assert stranger.get("/health").status_code == 200


def test_a_key_says_when_it_was_used(as_level: As, remote: TestClient) -> None:
    admin = as_level("admin")
    key = admin.post("/api/auth/api-keys", json={"name": "mine"}).json()["key"]
    assert admin.get("/api/auth/api-keys").json()["keys"][0]["last_used_at"] is None
    assert remote.get("/api/auth/me", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert admin.get("/api/auth/api-keys").json()["keys"][0]["last_used_at"] is not None


def test_a_key_that_is_taken_back_is_worth_nothing_at_once(as_level: As, remote: TestClient) -> None:
    admin = as_level("admin")
    made = admin.post("/api/auth/api-keys", json={"name": "mine"}).json()
    headers = {"X-API-Key": made["key"]}
    assert remote.get("/api/training/status", headers=headers).status_code == 200
    assert admin.delete(f"/api/auth/api-keys/{made['key_info']['id']}").status_code == 200
    assert remote.get("/api/training/status", headers=headers).status_code == 401


DEEP = '{"a":' + "[" * 5000 + "]" * 5000 + "}"
BROKEN = [
    ("PUT", "/api/configs/kites", '{"config": {"note": "\\ud800"}}'),
    ("POST", "/api/configs/environments", '{"name": "a", "model_family": "flux", "description": "\\u0000"}'),
    ("PUT", "/api/configs/kites/dataloader", '[{"id": "\\udfff"}]'),
    ("PUT", "/api/configs/kites", '{"config": ' + DEEP + "}"),
    ("POST", "/api/training/start", '{"model_family": "\\ud800"}'),
    ("POST", "/api/training/validate", DEEP),
    ("POST", "/api/auth/login", '{"username": "\\ud800", "password": "x"}'),
    ("POST", "/api/queue/submit", '{"config_name": "kites\\u0000"}'),
]


@pytest.mark.parametrize(("method", "path", "body"), BROKEN)
def test_what_is_no_text_is_refused_and_leaves_nothing(local: TestClient, method: str, path: str, body: str) -> None:
    local.post("/api/configs/environments", json={"name": "kites", "model_family": "flux"})
    before = local.get("/api/configs/").json()
    reply = local.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code in (400, 422), reply.text
    assert reply.json()["code"] in ("invalid_request", "broken_json", "broken_text")
    assert local.get("/api/configs/").json() == before


@pytest.mark.parametrize("name", ["%00", "a%00", "%ED%A0%80"])
def test_names_that_are_no_text_are_no_names(local: TestClient, name: str) -> None:
    for path in (f"/api/configs/{name}", f"/api/training/status?job_id={name}", f"/api/cloud/jobs/{name}"):
        assert local.get(path).status_code in (400, 404), path
