"""The queue on its way."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from flowtuner.api.schemas.incoming import Incoming


class Submission(Incoming):
    """An environment that is to be trained."""

    config_name: Annotated[str, Field(min_length=1, max_length=120)]
    no_wait: bool = False
    any_gpu: bool = False
    for_approval: bool = False
    target: Literal["local", "worker", "auto"] = "auto"
    worker_labels: dict[str, str] = Field(default_factory=dict)


class SubmissionReply(BaseModel):
    """What became of it."""

    success: bool = True
    job_id: str | None
    status: str
    allocated_gpus: list[int] | None = None
    allocated_worker_id: str | None = None
    queue_position: int | None = None
    requires_approval: bool = False
    error: str | None = None
    reason: str | None = None


class Limits(Incoming):
    """How much may run at once; null is without limit, and what is left out stays."""

    local_job_max_concurrent: Annotated[int, Field(ge=1, le=10)] | None = None
    local_gpu_max_concurrent: Annotated[int, Field(ge=1, le=1024)] | None = None


class QueueStats(BaseModel):
    """The queue in numbers."""

    by_status: dict[str, int]
    by_user: dict[str, int]
    queue_depth: int
    running: int
    avg_wait_seconds: float | None
    local_gpu_max_concurrent: int | None
    local_job_max_concurrent: int | None
    local: dict[str, Any]
    workers: dict[str, int] | None


class QueueEntry(BaseModel):
    """One job as the queue shows it."""

    id: str
    job_id: str
    user_id: int | None
    config_name: str | None
    priority: int
    status: str
    position: int | None
    queued_at: str
    started_at: str | None
    completed_at: str | None
    attempt: int
    error_message: str | None


class QueueList(BaseModel):
    """Jobs that wait or run."""

    entries: list[QueueEntry]
    total_pending: int
    total_running: int


class PriorityChange(Incoming):
    """A place before or behind others."""

    priority: Annotated[int, Field(ge=0, le=100)]
