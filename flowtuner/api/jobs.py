"""Which job a request means, and whether its sender may see or steer it."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Form, Query
from sqlalchemy import select
from sqlalchemy.orm import Session

from flowtuner.api.auth.caller import Caller
from flowtuner.api.errors import ApiError
from flowtuner.jobs import store
from flowtuner.jobs.loop import ask_to_cancel
from flowtuner.records.database import Database
from flowtuner.records.tables import Job

JobId = Annotated[str | None, Query(description="A job; the newest one under way if it is left out.")]
JobField = Annotated[str | None, Form(description="A job; the newest one under way if it is left out.")]
NAME = re.compile(r"[A-Za-z0-9-]{1,32}")


def find_job(session: Session, caller: Caller, job_id: str) -> Job:
    """A job by its id; 404 where there is none that the sender may see."""
    job = session.get(Job, job_id) if NAME.fullmatch(job_id) else None
    if job is None or not (caller.may("job.view.all") or caller.owns(job.user_id)):
        raise ApiError(404, "job_not_found", f"Job '{job_id[:64]}' not found")
    return job


def find_active(session: Session, caller: Caller, job_id: str | None) -> Job:
    """The job that is meant, or the newest under way that the sender may see; 400 where none is active."""
    job = find_job(session, caller, job_id) if job_id else find_newest(session, caller, store.ACTIVE)
    if job is None or job.status not in store.ACTIVE:
        raise ApiError(400, "no_active_job", "No active training job")
    return job


def find_newest(session: Session, caller: Caller, statuses: tuple[str, ...] = ()) -> Job | None:
    """The newest job that the sender may see."""
    query = select(Job).order_by(Job.created_at.desc()).limit(1)
    if statuses:
        query = query.where(Job.status.in_(statuses))
    if caller.sight is not None:
        query = query.where(Job.user_id == caller.sight)
    return session.scalar(query)


def find_current(session: Session, caller: Caller, job_id: str | None) -> Job | None:
    """The job that is meant; else the newest under way; else the newest there was."""
    if job_id:
        return find_job(session, caller, job_id)
    return find_newest(session, caller, store.ACTIVE) or find_newest(session, caller)


def refuse_foreign(caller: Caller, job: Job, permission: str = "job.cancel.all") -> None:
    """403 for who may see a job but not steer it, or not do what else needs a permission for everybody's jobs."""
    if not (caller.owns(job.user_id) or caller.may(permission)):
        raise ApiError(403, "permission_denied", f"Permission denied: {permission}")


def end_job(database: Database, caller: Caller, job: Job) -> str:
    """Takes a job out of the queue, or has it save and end; 409 for one that is over. Answers with its state."""
    refuse_foreign(caller, job)
    if job.status in store.OVER:
        raise ApiError(409, "job_over", f"Job {job.id} is over already: {job.status}", job_id=job.id)
    return ask_to_cancel(database, job.id)
