"""The pieces of a page that the training forms answer with; everything in them is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from fastapi.responses import HTMLResponse

from flowtuner.jobs.inspection import Inspection


def show_inspection(found: Inspection) -> HTMLResponse:
    """What checking a configuration found."""
    if not found.is_valid:
        return _alert("danger", "Validation Failed", found.errors)
    if found.warnings:
        return _alert("warning", "Configuration Valid", found.warnings, lead="Validation Warnings")
    return _alert("success", "Configuration Valid", ())


def show_refusal(errors: Iterable[str]) -> HTMLResponse:
    """Why a run was not started."""
    return _alert("danger", "Cannot Start Training", errors)


def show_start(job_id: str, position: int | None) -> HTMLResponse:
    """That a run begins, or where it waits."""
    if position:
        return _alert("info", "Training Queued", (), lead=f"Job ID: {job_id}, position {position} in the queue")
    return _alert("info", "Training Starting", (), lead=f"Job ID: {job_id}")


def show_message(kind: str, title: str, text: str) -> HTMLResponse:
    """One sentence."""
    return _alert(kind, title, (), lead=text)


def _alert(kind: str, title: str, items: Iterable[str], lead: str = "") -> HTMLResponse:
    listed = "".join(f"<li>{escape(item)}</li>" for item in items)
    return HTMLResponse(
        f'<div class="alert alert-{kind}" role="alert"><h6>{escape(title)}</h6>'
        + (f"<p>{escape(lead)}</p>" if lead else "")
        + (f"<ul>{listed}</ul>" if listed else "")
        + "</div>\n"
    )
