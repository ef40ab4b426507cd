"""What somebody wants to see of a job at first sight: its curve, its newest lines, its uploads."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from flowtuner.records.tables import JobEvent

MOST_POINTS = 1000
NOTES = ("notification", "error", "job.status", "training.status", "training.checkpoint", "script.status")


def read_curve(session: Session, job_id: str) -> list[tuple[int, float]]:
    """Step and loss, evenly thinned out; the newest step is always there."""
    is_metric = (JobEvent.job_id == job_id, JobEvent.type == "training.metric")
    count = session.scalar(select(func.count()).select_from(JobEvent).where(*is_metric)) or 0
    stride = -(-count // MOST_POINTS) or 1
    place = func.row_number().over(order_by=JobEvent.number.desc()).label("place")
    ranked = select(JobEvent.number, JobEvent.body, place).where(*is_metric).subquery()
    chosen = select(ranked.c.body).where((ranked.c.place - 1) % stride == 0).order_by(ranked.c.number)
    return [(body["data"]["step"], body["data"]["loss"]) for body in session.scalars(chosen)]


def read_newest(session: Session, job_id: str, types: Sequence[str], count: int) -> list[JobEvent]:
    """The newest events of some types, in the order in which they came."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.type.in_(types))
    return list(session.scalars(query.order_by(JobEvent.number.desc()).limit(count)))[::-1]


def read_uploads(session: Session, job_id: str) -> list[dict[str, object]]:
    """What became of each upload, the newest last."""
    newest: dict[tuple[str, str], dict[str, object]] = {}
    for event in read_newest(session, job_id, ("publish.status",), 500):
        data = event.body["data"]
        newest.pop((data["what"], data["destination"]), None)
        newest[data["what"], data["destination"]] = data
    return list(newest.values())
