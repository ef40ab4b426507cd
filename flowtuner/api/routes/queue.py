"""The queue: environments handed in to be trained one after another, and what is known about it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from flowtuner.api.auth.caller import Caller
from flowtuner.api.deps import DatabaseDep, Requires, SettingsDep
from flowtuner.api.errors import ApiError, refusals
from flowtuner.api.jobs import find_job
from flowtuner.api.schemas.queue import (
    Limits,
    PriorityChange,
    QueueEntry,
    QueueList,
    QueueStats,
    Submission,
    SubmissionReply,
)
from flowtuner.api.settings import ServerSettings
from flowtuner.engine.hardware import list_gpus
from flowtuner.jobs import starting, store
from flowtuner.jobs.dispatch import count_workers, list_workers
from flowtuner.jobs.environments import EnvironmentStore
from flowtuner.jobs.loop import JobsLoop
from flowtuner.records.database import Database
from flowtuner.records.tables import Job

router = APIRouter(tags=["queue"])
Submitter = Annotated[Caller, Depends(Requires("job.submit"))]
Viewer = Annotated[Caller, Depends(Requires("job.view.own"))]
QueueViewer = Annotated[Caller, Depends(Requires("queue.view"))]
MANAGE = [Depends(Requires("queue.manage"))]


@router.post("/api/queue/submit", responses=refusals(400, 401, 403, 404, 409, 503))
async def submit(
    wanted: Submission,
    request: Request,
    caller: Submitter,
    database: DatabaseDep,
    settings: SettingsDep,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> SubmissionReply:
    """Queues an environment; it is trained as soon as nothing stands before it."""
    loop: JobsLoop = request.app.state.jobs
    reply = await run_in_threadpool(_submit, wanted, caller, database, settings, idempotency_key)
    loop.hurry()
    return reply


@router.get("/api/queue/stats", responses=refusals(401, 403))
def read_stats(caller: QueueViewer, database: DatabaseDep) -> QueueStats:
    """The queue in numbers."""
    with database.reading() as session:
        counts = store.count_by_status(session)
        active = store.list_jobs(session, store.ACTIVE)
        limits = store.read_limits(session)
        by_user = _count_by_user(session)
        waits = [(job.started_at - job.created_at).total_seconds() for job in active if job.started_at]
    busy = sorted({gpu for job in active for gpu in job.allocated_gpus})
    gpus = [gpu.index for gpu in list_gpus()]
    return QueueStats(
        by_status=counts,
        by_user=by_user,
        queue_depth=counts.get(store.QUEUED, 0),
        running=len(active),
        avg_wait_seconds=sum(waits) / len(waits) if waits else None,
        local={
            "running_jobs": len(active),
            "pending_jobs": counts.get(store.QUEUED, 0),
            "allocated_gpus": busy,
            "available_gpus": [index for index in gpus if index not in busy],
            "total_gpus": len(gpus),
            "max_concurrent_gpus": limits["local_gpu_max_concurrent"],
            "max_concurrent_jobs": limits["local_job_max_concurrent"],
        },
        workers=count_workers(),
        **limits,
    )


@router.get("/api/queue", responses=refusals(401, 403))
def list_queue(caller: QueueViewer, database: DatabaseDep) -> QueueList:
    """The jobs that wait or run: all for leads, else one's own."""
    return _list(database, None if caller.may("queue.view.all") else caller.user_id)


@router.get("/api/queue/me", responses=refusals(401, 403))
def list_own(caller: QueueViewer, database: DatabaseDep) -> QueueList:
    """One's own jobs that wait or run."""
    return _list(database, caller.user_id)


@router.get("/api/queue/position/{job_id}", responses=refusals(401, 403, 404))
def read_position(job_id: str, caller: QueueViewer, database: DatabaseDep) -> dict[str, Any]:
    """Which place in the queue a job has."""
    with database.reading() as session:
        job = find_job(session, caller, job_id)
        return {"job_id": job.id, "status": job.status, "position": store.position_of(session, job)}


@router.get("/api/queue/concurrency", dependencies=MANAGE, responses=refusals(401, 403))
def read_concurrency(database: DatabaseDep) -> dict[str, Any]:
    """How much may run at once."""
    with database.reading() as session:
        return {"success": True, **store.read_limits(session)}


@router.post("/api/queue/concurrency", dependencies=MANAGE, responses=refusals(401, 403))
def set_concurrency(limits: Limits, request: Request, database: DatabaseDep) -> dict[str, Any]:
    """Sets how much may run at once; null is without limit."""
    with database.writing() as session:
        kept = store.write_limits(session, limits.model_dump(exclude_unset=True))
    request.app.state.jobs.hurry()
    return {"success": True, **kept}


@router.post("/api/queue/{job_id}/priority", dependencies=MANAGE, responses=refusals(401, 403, 404))
def set_priority(job_id: str, change: PriorityChange, caller: Viewer, database: DatabaseDep) -> dict[str, Any]:
    """Moves a job that waits before or behind others."""
    with database.writing() as session:
        job = find_job(session, caller, job_id)
        job.priority = change.priority
        session.flush()
        return {"success": True, "job_id": job.id, "position": store.position_of(session, job)}


@router.get("/api/admin/workers", dependencies=[Depends(Requires("admin.workers"))], responses=refusals(401, 403, 503))
def read_workers() -> dict[str, Any]:
    """The Prefect workers of the work pool."""
    return {"workers": list_workers()}


def _submit(
    wanted: Submission, caller: Caller, database: Database, settings: ServerSettings, key: str | None
) -> SubmissionReply:
    wish = starting.merge_environment(wanted.config_name, EnvironmentStore(settings.config_dir))
    with database.reading() as session:
        limit = store.read_limits(session)["local_job_max_concurrent"]
        busy = len(store.list_jobs(session, (store.QUEUED, *store.ACTIVE)))
    is_busy = limit is not None and busy >= limit
    workers = count_workers() or {}
    if wanted.no_wait and (is_busy or (wanted.target == "worker" and not workers.get("total_workers"))):
        reason = f"Maximum concurrent local jobs ({limit}) reached"
        raise ApiError(409, "rejected", reason, success=False, status="rejected", job_id=None)
    who, priority, target = caller.user_id, caller.priority, wanted.target
    job_id = starting.once(
        database,
        caller.username,
        key,
        wanted.model_dump(),
        lambda job_id: starting.submit(
            database, wish, settings.config_dir, job_id, user_id=who, priority=priority, target=target
        ),
    )
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        position = store.position_of(session, job)
    is_next = position == 1 and not is_busy
    return SubmissionReply(
        job_id=job_id,
        status="running" if is_next or job.status in store.ACTIVE else job.status,
        allocated_gpus=job.allocated_gpus,
        queue_position=None if is_next else position,
    )


def _list(database: Database, user_id: int | None) -> QueueList:
    with database.reading() as session:
        places = {job.id: place for place, job in enumerate(store.list_queue(session), 1)}
        jobs = store.list_jobs(session, (store.QUEUED, *store.ACTIVE), user_id)
    jobs.sort(key=lambda job: (places.get(job.id, 0), job.created_at))
    return QueueList(
        entries=[_entry(job, places.get(job.id)) for job in jobs],
        total_pending=sum(job.status == store.QUEUED for job in jobs),
        total_running=sum(job.status in store.ACTIVE for job in jobs),
    )


def _entry(job: Job, position: int | None) -> QueueEntry:
    return QueueEntry(
        id=job.id,
        job_id=job.id,
        user_id=job.user_id,
        config_name=job.config_name,
        priority=job.priority,
        status=job.status,
        position=position,
        queued_at=job.created_at.isoformat(),
        started_at=job.started_at.isoformat() if job.started_at else None,
        completed_at=job.completed_at.isoformat() if job.completed_at else None,
        attempt=job.attempt,
        error_message=job.detail if job.status == store.ERROR else None,
    )


def _count_by_user(session: Session) -> dict[str, int]:
    open_jobs = Job.status.in_((store.QUEUED, *store.ACTIVE))
    rows = session.execute(select(Job.user_id, func.count()).where(open_jobs).group_by(Job.user_id))
    return {str(user_id) if user_id is not None else "local": count for user_id, count in rows}
