"""What a server answers, as far as programs act on it; whatever else it says is left in `extra`."""

from __future__ import annotations

import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

OVER = ("completed", "error", "cancelled")


class Answer(BaseModel):
    """Base of all answers: a newer server may say more than this client knows."""

    model_config = ConfigDict(extra="allow")


class Job(Answer):
    """A job as lists show it."""

    job_id: str
    status: str
    config_name: str | None = None
    created_at: datetime.datetime
    started_at: datetime.datetime | None = None
    completed_at: datetime.datetime | None = None
    user_id: int | None = None
    output_dir: str | None = None
    progress: dict[str, Any] | None = None
    error_message: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in OVER


class Status(Answer):
    """Where a job stands."""

    status: str
    job_id: str | None
    job_info: dict[str, Any] | None = None
    progress: dict[str, Any] | None = None
    startup_progress: dict[str, Any] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in OVER


class Submission(Answer):
    """What became of a job that was handed in."""

    job_id: str
    status: str
    queue_position: int | None = None
    allocated_gpus: list[int] | None = None


class Verdict(Answer):
    """What checking a configuration found."""

    is_valid: bool
    errors: list[str]
    warnings: list[str]


class Event(Answer):
    """One event of a job's log."""

    id: str
    type: str
    job_id: str
    timestamp: datetime.datetime
    severity: str
    message: str
    title: str = ""
    data: dict[str, Any] = Field(default_factory=dict)
    images: list[dict[str, str]] = Field(default_factory=list)
    videos: list[dict[str, str]] = Field(default_factory=list)

    @property
    def number(self) -> int:
        """Its place in the job's log, from 1."""
        return int(self.id)


class Checkpoint(Answer):
    """A checkpoint in a job's output folder, on the server's disk."""

    name: str
    path: str
    step: int


class Queue(Answer):
    """The jobs that wait or run."""

    entries: list[dict[str, Any]]
    total_pending: int
    total_running: int
