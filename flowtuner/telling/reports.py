"""What a run wrote into its own log, in the shape that the API's events have."""

from __future__ import annotations

import base64
import datetime
import math
import mimetypes
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowtuner.engine import events

SEVERITIES = {
    "failed": "error",
    "error": "error",
    "completed": "success",
    "verified": "success",
    "cancelled": "warning",
}


@dataclass(frozen=True)
class Report:
    """One event on its way into the job's log; pictures are still files."""

    source: int
    time: datetime.datetime
    type: str
    severity: str
    message: str
    body: dict[str, Any] = field(default_factory=dict)
    pictures: tuple[Path, ...] = ()
    run: str = ""


class LogReader:
    """Reads a run's log from where it last was."""

    def __init__(self, path: Path) -> None:
        self._tail = events.Tail(path)

    def read(self, run: str | None, after: int) -> list[Report]:
        """The new reports of one run, or of all that wrote into the log."""
        new = (event for event in self._tail.read() if run in (None, event.run) and event.seq > after)
        return [translate(event) for event in new]


def translate(event: events.Event) -> Report:
    """An engine's event as the API tells it."""
    about = _DESCRIBED.get(event.type, _other)(event.data)
    about["body"] = _finite(about["body"])
    return Report(event.seq, datetime.datetime.fromtimestamp(event.time, datetime.UTC), run=event.run, **about)


def describe(
    number: int, type: str, job_id: str, time: datetime.datetime, body: dict[str, Any], pictures: Iterable[Path]
) -> dict[str, Any]:
    """An event as clients see it, with its pictures in it."""
    drawings = [each for each in map(_embed, pictures) if each]
    films = [each for each in drawings if each["mime_type"] == "image/gif"]
    return {
        "id": str(number),
        "type": type,
        "job_id": job_id,
        "timestamp": time.isoformat(),
        "title": body.get("message", ""),
        "images": [each for each in drawings if each not in films],
        "videos": films,
        "audios": [],
    } | body


def _finite(value: Any) -> Any:
    # A loss may be no number; JSON, as browsers and databases read it, has no word for that.
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _embed(path: Path) -> dict[str, str] | None:
    try:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError:
        return None
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return {"src": f"data:{kind};base64,{data}", "mime_type": kind}


def _stage(data: dict[str, Any]) -> dict[str, Any]:
    current, total = data["current"], data["total"]
    percent = round(100 * current / total, 1) if total else (100.0 if data["status"] == "completed" else 0.0)
    stage = {key: data[key] for key in ("key", "status", "label", "current", "total")} | {"percent": percent}
    return _about("lifecycle.stage", data["label"], SEVERITIES.get(data["status"], "info"), stage=stage)


def _progress(data: dict[str, Any]) -> dict[str, Any]:
    total = data["total_steps"]
    percent = round(100 * data["step"] / total, 2) if total else 100.0
    progress = {
        "label": "training",
        "current": data["step"],
        "total": total,
        "percent": percent,
        "eta_seconds": data["eta_s"],
        "metrics": {key: data[key] for key in ("loss", "learning_rate", "steps_per_s")},
    }
    flat = {"percent": percent, "step": data["step"], "total_steps": total, "epoch": data["epoch"]}
    flat |= {"loss": data["loss"], "learning_rate": data["learning_rate"]}
    return _about("training.progress", f"step {data['step']} of {total}", progress=progress, data=flat)


def _metric(data: dict[str, Any]) -> dict[str, Any]:
    return _about("training.metric", f"step {data['step']}, loss {data['loss']:.4f}", data=data)


def _checkpoint(data: dict[str, Any]) -> dict[str, Any]:
    label = "final weights" if data["is_final"] else Path(data["path"]).name
    about = {"path": data["path"], "label": label, "is_final": data["is_final"]}
    return _about("training.checkpoint", f"{label} saved", "success", checkpoint=about, data={"step": data["step"]})


def _validation(data: dict[str, Any]) -> dict[str, Any]:
    paths = tuple(Path(path) for kind in ("images", "videos") for path in data.get(kind, ()))
    prompts = list(data.get("prompts", ()))
    failure = data.get("error")
    message = f"validated at step {data['step']}" + (f": {failure}" if failure else "")
    about = _about(
        "training.validation",
        message,
        "error" if failure else "success",
        title=f"Validation (step {data['step']})",
        body="\n".join(prompts),
        validation={"step": data["step"], "prompts": prompts, "error": failure},
        data={"step": data["step"], "prompts": prompts},
    )
    return about | {"pictures": paths}


def _status(data: dict[str, Any]) -> dict[str, Any]:
    severity = SEVERITIES.get(data["status"], "info")
    return _about("training.status", data.get("message") or data["status"], severity, data=data)


def _notification(data: dict[str, Any]) -> dict[str, Any]:
    kind = "error" if data["severity"] == "error" else "notification"
    return _about(kind, data["message"], data["severity"], data=data)


def _publish(data: dict[str, Any]) -> dict[str, Any]:
    what = f"{data['what']} to {data['destination']}: {data['state']}"
    return _about("publish.status", _with_reason(what, data), SEVERITIES.get(data["state"], "info"), data=data)


def _script(data: dict[str, Any]) -> dict[str, Any]:
    what = f"{data['script']} for {data['what']}: {data['state']}"
    return _about("script.status", _with_reason(what, data), SEVERITIES.get(data["state"], "info"), data=data)


def _with_reason(what: str, data: dict[str, Any]) -> str:
    return f"{what} ({data['message']})" if data.get("message") else what


def _other(data: dict[str, Any]) -> dict[str, Any]:
    return _about("debug", str(data.get("message", "")), "debug", data=data)


def _about(type: str, message: str, severity: str = "info", **body: Any) -> dict[str, Any]:
    return {"type": type, "severity": severity, "message": message, "body": body}


_DESCRIBED = {
    events.STAGE: _stage,
    events.PROGRESS: _progress,
    events.METRIC: _metric,
    events.CHECKPOINT: _checkpoint,
    events.VALIDATION: _validation,
    events.STATUS: _status,
    events.NOTIFICATION: _notification,
    events.PUBLISH: _publish,
    events.SCRIPT: _script,
}
