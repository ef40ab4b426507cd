"""Events as clients see them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flowtuner.engine import events
from flowtuner.telling.reports import describe, translate

UPLOAD = {"what": "checkpoint-4", "destination": "share", "step": 4, "state": "uploading", "verified": False}


def tell(type: str, data: dict[str, Any]) -> dict[str, Any]:
    report = translate(events.Event(7, 0.0, "run", type, data))
    body = report.body | {"severity": report.severity, "message": report.message}
    return describe(report.source, report.type, "0badcafe", report.time, body, report.pictures)


def test_a_loss_that_is_no_number_is_still_json() -> None:
    event = tell(events.METRIC, {"step": 3, "loss": float("nan"), "grad_norm": float("inf")})
    told = json.loads(json.dumps(event, allow_nan=False))
    assert told["data"] == {"step": 3, "loss": None, "grad_norm": None}


@pytest.mark.parametrize(
    ("more", "severity", "message"),
    [
        ({}, "info", "checkpoint-4 to share: uploading"),
        ({"state": "verified", "verified": True}, "success", "checkpoint-4 to share: verified"),
        ({"state": "failed", "message": "no room"}, "error", "checkpoint-4 to share: failed (no room)"),
    ],
)
def test_uploads_say_what_goes_where_and_how(more: dict[str, Any], severity: str, message: str) -> None:
    event = tell(events.PUBLISH, UPLOAD | more)
    assert (event["type"], event["severity"], event["message"]) == ("publish.status", severity, message)


def test_scripts_have_a_type_of_their_own() -> None:
    event = tell(events.SCRIPT, {"script": "post_upload_script", "what": "checkpoint-4", "state": "completed"})
    assert (event["type"], event["message"]) == ("script.status", "post_upload_script for checkpoint-4: completed")
