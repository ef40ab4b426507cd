"""The server as a whole."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from flowtuner.api.app import refuse_open_routes


def test_the_server_answers(local: TestClient) -> None:
    assert local.get("/health").json() == {"status": "healthy", "mode": "unified"}


def test_a_refusal_has_one_shape(local: TestClient) -> None:
    reply = local.get("/no/such/place")
    assert reply.status_code == 404
    assert reply.json() == {"detail": "Not Found", "code": "not_found"}


def test_a_route_that_asks_nobody_keeps_the_server_from_starting() -> None:
    app = FastAPI()

    @app.get("/forgotten")
    def answer() -> None: ...

    with pytest.raises(RuntimeError, match="/forgotten"):
        refuse_open_routes(app)
