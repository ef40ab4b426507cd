"""Runs asked for over HTTP: checked, queued once, and only by whom they may be."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

JSON = {"Accept": "application/json"}


@pytest.fixture
def form(tiny_run: dict[str, Any]) -> dict[str, str]:
    """A run as a form sends it."""
    return {f"--{name}": str(value) for name, value in tiny_run.items()}


def test_a_repeated_request_is_the_same_job(local: TestClient, form: dict[str, str]) -> None:
    headers = JSON | {"Idempotency-Key": "once"}
    first = local.post("/api/training/start", data=form, headers=headers)
    assert first.status_code == 200, first.text
    again = local.post("/api/training/start", data=form, headers=headers)
    assert first.json()["job_id"] == again.json()["job_id"] == again.headers["X-Job-Id"]
    other = local.post("/api/training/start", data=form | {"--max_train_steps": "9"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "key_reused")
    without = local.post("/api/training/start", data=form, headers=JSON)
    assert without.json()["job_id"] != first.json()["job_id"]
    assert len(local.get("/api/queue").json()["entries"]) == 2


def test_all_faults_are_told_and_escaped(local: TestClient, form: dict[str, str]) -> None:
    wrong = form | {"--model_family": "<script>", "--learning_rate": "fast"}
    page = local.post("/api/training/validate", data=wrong)
    assert page.status_code == 200
    assert "Validation Failed" in page.text
    assert "&lt;script&gt;" in page.text and "<script>" not in page.text
    reply = local.post("/api/training/validate", data=wrong, headers=JSON)
    assert reply.status_code == 422
    assert {error.partition(":")[0] for error in reply.json()["errors"]} >= {"model_family", "learning_rate"}
    assert local.post("/api/training/start", data=wrong, headers=JSON).status_code == 422
    assert local.get("/api/queue").json()["entries"] == []


def test_what_is_valid_is_called_so(local: TestClient, form: dict[str, str]) -> None:
    assert "Configuration Valid" in local.post("/api/training/validate", data=form).text


def test_without_a_run_there_is_nothing_to_steer(local: TestClient) -> None:
    for path in ("validation/run", "checkpoint/run"):
        reply = local.post(f"/api/training/{path}")
        assert (reply.status_code, reply.json()["detail"]) == (400, "No active training job")
    assert local.post("/api/training/stop").json()["message"] == "No active training job to stop"
    assert local.get("/api/training/status").json()["status"] == "idle"


def test_a_waiting_job_is_taken_out_of_the_queue(local: TestClient, form: dict[str, str]) -> None:
    job_id = local.post("/api/training/start", data=form, headers=JSON).json()["job_id"]
    assert local.get(f"/api/queue/position/{job_id}").json()["position"] == 1
    reply = local.post("/api/training/cancel", data={"job_id": job_id}, headers=JSON)
    assert (reply.status_code, reply.json()["status"]) == (200, "cancelled")
    again = local.post("/api/training/cancel", data={"job_id": job_id}, headers=JSON)
    assert (again.status_code, again.json()["code"]) == (409, "job_over")
