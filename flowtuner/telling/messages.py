"""An event as a webhook's receiver reads it: JSON for programs, a line with pictures for Discord."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from urllib3.filepost import encode_multipart_formdata

from flowtuner.telling.hooks import RAW, Hook, key_of
from flowtuner.telling.reports import Report, describe

MOST_FILES = 10
MOST_TEXT = 1900
FOR_PEOPLE = (
    "notification",
    "error",
    "training.checkpoint",
    "training.validation",
    "training.status",
    "publish.status",
)
SUPERSEDED = ("training.progress", "training.metric")


@dataclass(frozen=True)
class Message:
    """What is sent: the same bytes at every attempt, so that a receiver knows a repetition."""

    id: str
    body: bytes
    headers: Mapping[str, str]


def severity_of(report: Report) -> str:
    """How much an event matters; every step's own figures are for debugging."""
    if report.type in ("training.metric", "debug"):
        return "debug"
    return "info" if report.severity == "success" else report.severity


def compose(hook: Hook, report: Report, job_id: str, project: str) -> Message | None:
    """The message of an event for a webhook; None for an event that it is not told."""
    if not hook.wants(severity_of(report)):
        return None
    number = f"{report.run}-{report.source}"
    if hook.kind == RAW:
        return _raw(hook, report, job_id, number)
    return _discord(hook, report, project, number) if report.type in FOR_PEOPLE else None


def _raw(hook: Hook, report: Report, job_id: str, number: str) -> Message:
    body = report.body | {"severity": report.severity, "message": report.message}
    event = describe(report.source, report.type, job_id, report.time, body, report.pictures)
    if hook.prefix:
        event["title"] = f"{hook.prefix} {event['title']}"
    data = json.dumps(event, separators=(",", ":"), default=str).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "flowtuner"}
    if hook.auth_token:
        headers["X-API-Key"] = hook.auth_token
    return Message(number, data, headers)


def _discord(hook: Hook, report: Report, project: str, number: str) -> Message:
    prefix = f"{hook.prefix} " if hook.prefix else ""
    text = f"`({project})` {prefix}{report.body.get('title') or report.message}"
    if prompts := report.body.get("body"):
        text += f"\n{prompts}"
    fields: list[tuple[str, str | tuple[str, bytes]]] = [("content", text[:MOST_TEXT])]
    pictures = [path for path in report.pictures if path.is_file()][:MOST_FILES]
    fields += [(f"file{place}", (path.name, path.read_bytes())) for place, path in enumerate(pictures)]
    body, kind = encode_multipart_formdata(fields, boundary=hashlib.sha256(number.encode()).hexdigest()[:32])
    return Message(number, body, {"Content-Type": kind, "User-Agent": "flowtuner"})


def sign(hook: Hook, message: Message) -> dict[str, str]:
    """The headers of https://www.standardwebhooks.com: which message, when, and the proof that it is ours."""
    moment = str(int(time.time()))
    headers = {"webhook-id": message.id, "webhook-timestamp": moment}
    if hook.signing_secret:
        content = b".".join((message.id.encode(), moment.encode(), message.body))
        digest = hmac.new(key_of(hook.signing_secret), content, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers
