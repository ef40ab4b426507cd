"""Jobs as they are kept: who wants what trained, in which order, and how far it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from flowtuner.records.tables import Idempotency, Job, JobEvent, Setting, now

QUEUED, STARTING, RUNNING = "queued", "starting", "running"
COMPLETED, ERROR, CANCELLED = "completed", "error", "cancelled"
ACTIVE = (STARTING, RUNNING)
OVER = (COMPLETED, ERROR, CANCELLED)
NEXT = {
    QUEUED: (STARTING, CANCELLED, ERROR),
    STARTING: (RUNNING, QUEUED, *OVER),
    RUNNING: (STARTING, QUEUED, *OVER),
}
LIMITS = "local_limits"
DEFAULT_LIMITS = {"local_job_max_concurrent": 1, "local_gpu_max_concurrent": None}


def list_jobs(session: Session, statuses: Sequence[str] = (), user_id: int | None = None) -> list[Job]:
    """Jobs, newest first; those of one user only where one is given."""
    query = select(Job).order_by(Job.created_at.desc(), Job.id)
    if statuses:
        query = query.where(Job.status.in_(statuses))
    if user_id is not None:
        query = query.where(Job.user_id == user_id)
    return list(session.scalars(query))


def list_newest(session: Session, limit: int, user_id: int | None = None) -> tuple[list[Job], int]:
    """The newest jobs, and how many there are; of one user only where one is given."""
    owned = () if user_id is None else (Job.user_id == user_id,)
    total = session.scalar(select(func.count()).select_from(Job).where(*owned)) or 0
    query = select(Job).where(*owned).order_by(Job.created_at.desc(), Job.id).limit(limit)
    return list(session.scalars(query)), total


def list_queue(session: Session) -> list[Job]:
    """The jobs that wait, the next one first: by priority, then by age."""
    order = (Job.priority.desc(), Job.created_at, Job.id)
    return list(session.scalars(select(Job).where(Job.status == QUEUED).order_by(*order)))


def position_of(session: Session, job: Job) -> int | None:
    """Which place in the queue a job has, from 1; None if it does not wait."""
    waiting = [each.id for each in list_queue(session)]
    return waiting.index(job.id) + 1 if job.id in waiting else None


def enqueue(session: Session, job: Job) -> None:
    """Puts a new job into the queue, and tells so."""
    job.status = QUEUED
    session.add(job)
    session.flush()
    add_event(session, job, "job.status", f"Job {job.id} queued", data={"status": QUEUED})


def move(session: Session, job: Job, status: str, detail: str | None = None) -> bool:
    """Brings a job into another state, if the way there is open; what is over stays over.

    The row itself decides, not what was read of it: two who move it at once cannot both succeed.
    """
    if status not in NEXT.get(job.status, ()):
        return False
    values: dict[str, Any] = {"status": status, "detail": detail}
    if status == STARTING and job.started_at is None:
        values["started_at"] = now()
    if status in OVER:
        values["completed_at"] = now()
    statement = update(Job).where(Job.id == job.id, Job.status == job.status).values(**values)
    is_moved = session.scalar(statement.returning(Job.id)) is not None
    session.refresh(job)
    if is_moved:
        severity = {ERROR: "error", CANCELLED: "warning", COMPLETED: "success"}.get(status, "info")
        words = {"status": status, "message": detail or f"Job {job.id}: {status}"}
        add_event(session, job, "job.status", words["message"], severity=severity, data=words)
    return is_moved


def add_event(
    session: Session,
    job: Job,
    type: str,
    message: str,
    *,
    severity: str = "info",
    source: int | None = None,
    time: Any = None,
    **body: Any,
) -> int:
    """Writes the next event of a job, and answers with its number."""
    newest = update(Job).where(Job.id == job.id).values(last_event=Job.last_event + 1).returning(Job.last_event)
    number = int(session.scalar(newest) or 0)
    moment = time or now()
    session.add(
        JobEvent(
            job_id=job.id,
            number=number,
            attempt=job.attempt,
            source=source,
            type=type,
            time=moment,
            body={"severity": severity, "message": message} | body,
        )
    )
    session.flush()
    return number


def resuming(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a job's next flow run is started with: the same, from its newest checkpoint."""
    values = dict(parameters.get("config") or {})
    return dict(parameters) | {"config": values | {"resume_from_checkpoint": "latest"}}


def read_events(session: Session, job_id: str, after: int, limit: int) -> list[JobEvent]:
    """The events of a job behind a number."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.number > after)
    return list(session.scalars(query.order_by(JobEvent.number).limit(limit)))


def read_limits(session: Session) -> dict[str, Any]:
    """How many jobs and GPUs may be busy here at once; None is without limit."""
    setting = session.get(Setting, LIMITS)
    return DEFAULT_LIMITS | (dict(setting.value) if setting else {})


def write_limits(session: Session, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes limits; what is left out stays."""
    limits = read_limits(session) | dict(changes)
    session.merge(Setting(name=LIMITS, value=limits))
    return limits


def count_by_status(session: Session) -> dict[str, int]:
    """How many jobs are in which state."""
    rows = session.execute(select(Job.status, func.count()).group_by(Job.status))
    return {status: count for status, count in rows}


def recall(session: Session, owner: str, key: str, request: Any) -> Idempotency | None:
    """What a request with this key was answered; raises ValueError if the key was used for another request."""
    found = session.get(Idempotency, (owner, key))
    if found and found.request_hash != _hash(request):
        raise ValueError(key)
    return found


def remember(session: Session, owner: str, key: str, request: Any, job_id: str) -> None:
    """Notes which job a request with a key makes."""
    session.add(Idempotency(owner=owner, key=key, request_hash=_hash(request), job_id=job_id))


def forget(session: Session, owner: str, key: str) -> None:
    """The same request may come again: it made no job."""
    session.execute(delete(Idempotency).where(Idempotency.owner == owner, Idempotency.key == key))


def _hash(request: Any) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()
