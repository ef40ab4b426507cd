"""One job at first sight: what a page needs before it follows the events."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from flowtuner.api.auth.caller import Caller
from flowtuner.api.board import describe_event
from flowtuner.api.deps import DatabaseDep, Requires, SettingsDep
from flowtuner.api.errors import not_found, refusals
from flowtuner.api.jobs import JobId, find_current
from flowtuner.jobs import summary
from flowtuner.records.tables import Job

router = APIRouter(tags=["training"])
LINES, VALIDATIONS = 100, 4


@router.get("/api/training/summary", responses=refusals(401, 403, 404))
def read_summary(
    request: Request,
    caller: Annotated[Caller, Depends(Requires("job.view.own"))],
    database: DatabaseDep,
    settings: SettingsDep,
    job_id: JobId = None,
) -> dict[str, Any]:
    """The state, the loss curve (thinned out), the newest lines and pictures, and what is published where.

    The events that follow are those behind `last_event`.
    """
    with database.reading() as session:
        job = find_current(session, caller, job_id)
        if job is None:
            raise not_found("Job", "newest")
        notes = summary.read_newest(session, job.id, summary.NOTES, LINES)
        validations = summary.read_newest(session, job.id, ("training.validation",), VALIDATIONS)
        curve, uploads = summary.read_curve(session, job.id), summary.read_uploads(session, job.id)
    return {
        "job_id": job.id,
        "config_name": job.config_name,
        "status": job.status,
        "detail": job.detail,
        "progress": job.progress or None,
        "last_event": job.last_event,
        "curve": curve,
        "uploads": uploads,
        "notes": [describe_event(event, settings.home) for event in notes],
        "validations": [describe_event(event, settings.home) for event in validations],
        "prefect_url": _prefect_url(request, job),
    }


def _prefect_url(request: Request, job: Job) -> str | None:
    services = request.app.state.services
    ui_url = services.ui_url if services else None
    return f"{ui_url}/runs/flow-run/{job.flow_run_id}" if ui_url and job.flow_run_id else None
