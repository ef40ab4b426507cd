"""Who may come in: the first administrator, users, keys, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from flowtuner.api.settings import ServerSettings

PASSWORD = "your-secure-password"
ADMIN = {"email": "admin@example.com", "username": "admin", "password": PASSWORD}


def test_the_tutorials_set_up_login_and_key(local: TestClient) -> None:
    status = local.get("/api/cloud/auth/setup/status").json()
    assert status == {"needs_setup": True, "has_admin": False, "user_count": 0, "registration_enabled": False}
    first = local.post("/api/cloud/auth/setup/first-admin", json=ADMIN)
    assert first.status_code == 200
    assert first.json()["message"] == "Admin account created successfully"
    assert "HttpOnly" in first.headers["set-cookie"] and "samesite=lax" in first.headers["set-cookie"].lower()
    local.cookies.clear()
    assert local.get("/api/auth/me").status_code == 401
    login = local.post("/api/cloud/auth/login", json={"username": "admin", "password": PASSWORD})
    assert login.json()["user"]["permissions"] == ["*"]
    made = local.post("/api/cloud/auth/api-keys", json={"name": "automation-key"}).json()
    assert made["key"].startswith("st_") and made["key"].startswith(made["key_info"]["key_prefix"])
    assert len(made["key"]) == 35 and len(made["key_info"]["key_prefix"]) == 11
    local.cookies.clear()
    for headers in ({"X-API-Key": made["key"]}, {"Authorization": f"Bearer {made['key']}"}):
        assert local.get("/api/auth/me", headers=headers).json()["username"] == "admin"
    assert made["key"] not in local.get("/api/auth/api-keys", headers={"X-API-Key": made["key"]}).text
    user = {
        "email": "researcher@example.com",
        "username": "researcher",
        "password": "their-password",
        "level_names": ["researcher"],
    }
    created = local.post("/api/users", json=user, headers={"X-API-Key": made["key"]})
    assert created.status_code == 201 and created.json()["levels"][0]["name"] == "researcher"


def test_until_then_only_this_machine_is_let_in(local: TestClient, remote: TestClient, app: FastAPI) -> None:
    assert local.get("/api/auth/me").json()["username"] == "local"
    assert remote.get("/api/auth/me").status_code == 401
    for headers in ({"X-Forwarded-For": "192.0.2.9"}, {"Host": "training.example.com"}):
        assert local.get("/api/auth/me", headers=headers).status_code == 401


def test_from_elsewhere_the_first_administrator_needs_the_printed_token(
    remote: TestClient, settings: ServerSettings
) -> None:
    refused = remote.post("/api/auth/setup/first-admin", json=ADMIN)
    assert refused.status_code == 401 and refused.json()["code"] == "setup_token_required"
    assert (settings.home / "setup_token").stat().st_mode & 0o777 == 0o600
    token = settings.read_setup_token()
    assert remote.post("/api/auth/setup/first-admin", json=ADMIN, headers={"X-Setup-Token": token}).status_code == 200


def test_there_is_one_first_administrator_however_many_try(local: TestClient) -> None:
    answers: list[int] = []

    def claim(number: int) -> None:
        wanted = {"email": f"a{number}@example.com", "username": f"admin{number}", "password": PASSWORD}
        answers.append(local.post("/api/auth/setup/first-admin", json=wanted).status_code)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 409, 409, 409]


def test_a_key_opens_no_more_than_its_scope(as_level: Callable[[str], TestClient]) -> None:
    admin = as_level("admin")
    made = admin.post("/api/auth/api-keys", json={"name": "narrow", "scoped_permissions": ["job.view.*"]}).json()
    narrow = {"X-API-Key": made["key"], "Cookie": ""}
    assert admin.get("/api/users", headers=narrow).status_code == 403
    user = {"email": "x@example.com", "username": "xxx", "password": PASSWORD, "is_admin": True}
    assert admin.post("/api/users", json=user, headers=narrow).status_code == 403
    researcher = as_level("researcher")
    wide = researcher.post("/api/auth/api-keys", json={"name": "wide", "scoped_permissions": ["admin.users"]})
    assert wide.status_code == 400 and wide.json()["code"] == "scope_too_wide"


def test_a_key_ends_when_it_is_deleted_or_its_owner_may_not_come_in(as_level: Callable[[str], TestClient]) -> None:
    admin, researcher = as_level("admin"), as_level("researcher")
    made = researcher.post("/api/auth/api-keys", json={"name": "one"}).json()
    stranger = {"X-API-Key": made["key"], "Cookie": ""}
    assert admin.get("/api/auth/me", headers=stranger).json()["username"] == "researcher"
    assert admin.delete(f"/api/auth/api-keys/{made['key_info']['id']}").status_code == 404  # not the admin's own
    user_id = researcher.get("/api/auth/me").json()["id"]
    assert admin.patch(f"/api/users/{user_id}", json={"is_active": False}).status_code == 200
    assert admin.get("/api/auth/me", headers=stranger).status_code == 401
    assert researcher.get("/api/auth/me").status_code == 401


def test_the_last_administrator_stays(as_level: Callable[[str], TestClient]) -> None:
    admin = as_level("admin")
    own = admin.get("/api/auth/me").json()["id"]
    for refused in (
        admin.delete(f"/api/users/{own}"),
        admin.patch(f"/api/users/{own}", json={"is_admin": False, "level_names": ["viewer"]}),
        admin.patch(f"/api/users/{own}", json={"is_active": False}),
    ):
        assert refused.status_code == 400 and refused.json()["code"] == "last_admin"
    assert admin.get("/api/auth/me").json()["is_admin"] is True


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"password": "pw-of-7"}, 422),
        ({"email": "nobody"}, 422),
        ({"username": "a b"}, 422),
        ({"username": "ADMIN"}, 400),
        ({"level_names": ["king"]}, 400),
    ],
)
def test_a_user_that_cannot_be_is_refused(as_level: Callable[[str], TestClient], change: dict, status: int) -> None:
    wanted = {"email": "new@example.com", "username": "newcomer", "password": PASSWORD} | change
    reply = as_level("admin").post("/api/users", json=wanted)
    assert reply.status_code == status
    assert "pw-of-7" not in reply.text  # a refused password is not repeated


def test_registration_is_closed_until_somebody_opens_it(as_level: Callable[[str], TestClient]) -> None:
    admin = as_level("admin")
    wanted = {"email": "new@example.com", "username": "newcomer", "password": PASSWORD}
    assert admin.post("/api/auth/register", json=wanted).status_code == 403
    assert as_level("lead").put("/api/auth/registration", json={"enabled": True}).status_code == 403
    assert admin.put("/api/auth/registration", json={"enabled": True}).status_code == 200
    assert admin.post("/api/auth/register", json=wanted).json()["user"]["levels"][0]["name"] == "researcher"


def test_guessing_passwords_is_slowed_down(local: TestClient) -> None:
    local.post("/api/auth/setup/first-admin", json=ADMIN)
    guess = {"username": "admin", "password": "guessed-password"}
    answers = [local.post("/api/auth/login", json=guess).status_code for _ in range(16)]
    assert answers == [401] * 15 + [429]
    last = local.post("/api/auth/login", json=guess)
    assert int(last.headers["retry-after"]) > 0 and last.json()["code"] == "too_many_requests"


def test_a_foreign_page_cannot_write_with_our_cookie(as_level: Callable[[str], TestClient]) -> None:
    admin = as_level("admin")
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        refused = admin.put("/api/auth/registration", json={"enabled": True}, headers=headers)
        assert refused.status_code == 403 and refused.json()["code"] == "foreign_origin"
    own = {"Origin": "http://localhost:8001", "Sec-Fetch-Site": "same-origin"}
    assert admin.put("/api/auth/registration", json={"enabled": False}, headers=own).status_code == 200
