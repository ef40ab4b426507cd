"""Jobs on their way to whoever watches them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from flowtuner.records.tables import Job


class StatusReply(BaseModel):
    """Where a job stands."""

    status: str
    config: dict[str, Any]
    job_id: str | None
    job_info: dict[str, Any] | None
    progress: dict[str, Any] | None
    startup_progress: dict[str, Any]


class Checkpoints(BaseModel):
    """The checkpoints of a job."""

    job_id: str | None
    output_dir: str | None
    checkpoints: list[dict[str, Any]]
    count: int


class OrderReply(BaseModel):
    """That a running job was asked for something."""

    success: bool = True
    job_id: str
    order_id: str
    message: str


def describe_status(job: Job | None) -> StatusReply:
    """A job's state as it is shown; idle where there is none."""
    if job is None:
        return StatusReply(status="idle", config={}, job_id=None, job_info=None, progress=None, startup_progress={})
    info = {
        "status": job.status,
        "status_detail": job.detail,
        "error": job.detail if job.status == "error" else None,
        "message": job.detail,
        "config_name": job.config_name,
        "flow_run_id": job.flow_run_id,
        "attempt": job.attempt,
        "output_dir": job.output_dir,
        "created_at": job.created_at.isoformat(),
        "started_at": job.started_at.isoformat() if job.started_at else None,
        "completed_at": job.completed_at.isoformat() if job.completed_at else None,
    }
    return StatusReply(
        status=job.status,
        config=job.resolved.get("config", {}),
        job_id=job.id,
        job_info=info,
        progress=job.progress or None,
        startup_progress={key: _stage(stage) for key, stage in job.stages.items()},
    )


def _stage(stage: dict[str, Any]) -> dict[str, Any]:
    return {"progress_type": "stage"} | {key: stage[key] for key in ("label", "status", "percent", "current", "total")}
