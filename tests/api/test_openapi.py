"""The OpenAPI document against the server: made-up requests, as every level, find nothing undocumented."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest
import requests
from fastapi import FastAPI
from fastapi.testclient import TestClient

from flowtuner.api.auth.accounts import open_login
from flowtuner.api.auth.caller import COOKIE
from flowtuner.api.auth.permissions import LEVELS
from flowtuner.records.tables import User

CASES = 40


def test_the_document_is_served_and_has_the_tutorials_tags(local: TestClient) -> None:
    document = local.get("/openapi.json").json()
    tags = {tag for path in document["paths"].values() for way in path.values() for tag in way["tags"]}
    assert {"configurations", "training"} <= tags


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_made_up_requests_find_nothing_undocumented(
    app: FastAPI, as_level: Callable[[str], TestClient], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowtuner.api.routes.system.os.kill", lambda *signal: None)
    monkeypatch.setattr(app.state.limiter, "count", lambda *attempt: None)
    as_level("admin")
    app.state.closing.set()  # streams end at once
    faults: list[str] = []
    counts = {level: try_everything(app, address, level, faults) for level in LEVELS}
    assert not faults, "\n".join(faults)
    assert sum(counts.values()) >= 10_000, counts


def try_everything(app: FastAPI, address: str, level: str, faults: list[str]) -> int:
    """How many requests were made; what was not answered as the document says is noted."""
    from schemathesis import openapi

    schema = openapi.from_url(f"{address}/openapi.json")
    return sum(try_operation(result.ok(), app, level, faults) for result in schema.get_all_operations())


def try_operation(operation: Any, app: FastAPI, level: str, faults: list[str]) -> int:
    """Requests that follow the document and requests that do not, half and half."""
    import hypothesis
    from schemathesis import GenerationMode
    from schemathesis.checks import CHECKS, load_all_checks

    load_all_checks()
    checks = CHECKS.get_by_names(["status_code_conformance", "content_type_conformance", "response_schema_conformance"])
    examples = hypothesis.settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    cookies = {COOKIE: sign_in(app, level)}
    session, count = requests.Session(), 0
    for mode in GenerationMode:

        @examples
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            nonlocal count
            reply = case.call(session=session, cookies=cookies, timeout=30)
            count += 1
            case.validate_response(reply, checks=checks)
            # Without a Prefect server 503 is the documented truth; any other 5xx is a fault.
            assert reply.status_code < 500 or reply.status_code == 503, reply.text

        try:
            ask()
        except hypothesis.errors.Unsatisfiable:
            continue  # this operation takes nothing that could be wrong
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001  every kind of failure is one line of the result
            faults.append(f"{level}: {operation.label} ({mode.value}): {describe(error)}")
    return count


def describe(error: BaseException) -> str:
    inner = getattr(error, "exceptions", ())
    return "; ".join(map(describe, inner)) if inner else f"{error} {getattr(error, 'message', '')}"


def sign_in(app: FastAPI, level: str) -> str:
    """A fresh user's login: what the requests before did to their own does not matter."""
    name = f"{level}-{secrets.token_hex(8)}"
    with app.state.database.writing() as session:
        user = User(email=f"{name}@example.com", username=name, username_key=name, level_names=[level])
        session.add(user)
        session.flush()
        return open_login(session, user, is_long=False)[0]
