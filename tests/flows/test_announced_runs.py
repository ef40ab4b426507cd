"""Runs that tell webhooks of themselves, and runs whose webhooks are away."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from flows.train import train
from tests.fakes.receiver import receiving

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWTUNER_WEBHOOK_ALLOW", "127.0.0.1")


def test_a_run_tells_its_beginning_its_checkpoints_and_its_end(options: dict[str, Any]) -> None:
    with receiving() as receiver:
        hook = {"webhook_type": "raw", "callback_url": receiver.address, "log_level": "info", "ssl_no_verify": False}
        train(config=options | {"--webhook_config": json.dumps([hook]), "--webhook_reporting_interval": 10})
    told = [json.loads(each.body) for each in receiver.deliveries]
    assert [int(event["id"]) for event in told] == sorted({int(event["id"]) for event in told})
    statuses = [event["data"]["status"] for event in told if event["type"] == "training.status"]
    assert statuses == ["running", "completed"]
    saved = [event["checkpoint"]["label"] for event in told if event["type"] == "training.checkpoint"]
    assert saved == ["checkpoint-4", "checkpoint-8", "final weights"]
    assert sum(event["type"] == "training.progress" for event in told) <= 1
    assert {event["type"] for event in told} >= {"lifecycle.stage", "publish.status", "training.validation"}


def test_a_webhook_that_is_away_ends_no_run_and_holds_it_up_for_seconds_at_most(options: dict[str, Any]) -> None:
    with receiving() as receiver:
        address = receiver.address  # nobody is there afterwards
    before = time.monotonic()
    outcome = train(config=options | {"webhook_config": [{"callback_url": address}]})
    assert outcome["step"] == 8
    assert time.monotonic() - before < 40
