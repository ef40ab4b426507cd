"""Jobs as lists of work: seen, cancelled, tried again, forgotten."""

from __future__ import annotations

import shutil
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from flowtuner.api.auth.caller import Caller
from flowtuner.api.deps import DatabaseDep, Requires, SettingsDep
from flowtuner.api.errors import ApiError, refusals
from flowtuner.api.jobs import end_job, find_job, refuse_foreign
from flowtuner.api.schemas.queue import SubmissionReply
from flowtuner.jobs import starting, store
from flowtuner.jobs.intake import picture_folder
from flowtuner.records.tables import Job

router = APIRouter(tags=["jobs"])
Viewer = Annotated[Caller, Depends(Requires("job.view.own"))]
Submitter = Annotated[Caller, Depends(Requires("job.submit"))]
Steerer = Annotated[Caller, Depends(Requires("job.cancel.own"))]
Deleter = Annotated[Caller, Depends(Requires("job.delete.own"))]


@router.get("/api/cloud/jobs", responses=refusals(401, 403))
def list_jobs(
    caller: Viewer, database: DatabaseDep, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> dict[str, Any]:
    """Jobs, newest first: all for leads, else one's own."""
    with database.reading() as session:
        jobs, total = store.list_newest(session, limit, caller.sight)
        return {"jobs": [_describe(job) for job in jobs], "total": total}


@router.get("/api/cloud/jobs/{job_id}", responses=refusals(401, 403, 404))
def read_job(job_id: str, caller: Viewer, database: DatabaseDep) -> dict[str, Any]:
    """One job."""
    with database.reading() as session:
        return _describe(find_job(session, caller, job_id))


@router.post("/api/cloud/jobs/{job_id}/cancel", responses=refusals(401, 403, 404, 409, 503))
@router.post("/api/queue/{job_id}/cancel", responses=refusals(401, 403, 404, 409, 503), tags=["queue"])
def cancel(job_id: str, caller: Steerer, database: DatabaseDep) -> dict[str, Any]:
    """Takes a job out of the queue, or has it save and end."""
    with database.reading() as session:
        job = find_job(session, caller, job_id)
    return {"success": True, "job_id": job.id, "status": end_job(database, caller, job)}


@router.post("/api/cloud/jobs/{job_id}/retry", responses=refusals(401, 403, 404, 409))
def retry(job_id: str, request: Request, caller: Submitter, database: DatabaseDep) -> SubmissionReply:
    """Queues a job that is over once more; it goes on from its newest checkpoint."""
    with database.reading() as session:
        job = find_job(session, caller, job_id)
    refuse_foreign(caller, job)
    _require_over(job)
    again = starting.repeat(database, job, user_id=caller.user_id, priority=caller.priority)
    request.app.state.jobs.hurry()
    with database.reading() as session:
        position = store.position_of(session, session.get_one(Job, again))
    return SubmissionReply(job_id=again, status=store.QUEUED, queue_position=position)


@router.delete("/api/cloud/jobs/{job_id}", responses=refusals(401, 403, 404, 409))
def delete(job_id: str, caller: Deleter, database: DatabaseDep, settings: SettingsDep) -> dict[str, Any]:
    """Forgets a job that is over, with its events; what it trained stays."""
    with database.writing() as session:
        job = find_job(session, caller, job_id)
        refuse_foreign(caller, job, "job.delete.all")
        _require_over(job)
        session.delete(job)
    shutil.rmtree(picture_folder(settings.home, job.id), ignore_errors=True)
    return {"success": True, "job_id": job.id}


def _require_over(job: Job) -> None:
    if job.status not in store.OVER:
        raise ApiError(409, "job_under_way", f"Job {job.id} is {job.status}: cancel it first", job_id=job.id)


def _describe(job: Job) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "job_type": "local",
        "provider": None,
        "status": job.status,
        "config_name": job.config_name,
        "created_at": job.created_at.isoformat(),
        "started_at": job.started_at.isoformat() if job.started_at else None,
        "completed_at": job.completed_at.isoformat() if job.completed_at else None,
        "user_id": job.user_id,
        "output_dir": job.output_dir,
        "progress": job.progress or None,
        "error_message": job.detail if job.status == store.ERROR else None,
        "metadata": {"runtime_config": job.resolved.get("config", {}), "flow_run_id": job.flow_run_id},
    }
