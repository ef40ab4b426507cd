"""When a task is tried again: a type test on our own errors."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import task_run as present_run
from prefect.tasks import Task, exponential_backoff

from flowtuner.errors import Transient

ENGINE_RETRIES = 3
PUBLISH_RETRIES = 4
BACKOFF_S = 1.0  # at most 12 s between two attempts: a cancelled run must not wait longer
JITTER = 0.5

P = ParamSpec("P")
R = TypeVar("R")


def engine_task(run_name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task that is handed the live engine: never cached, tried again when the engine died."""
    return _task(run_name, ENGINE_RETRIES)


def publish_task(run_name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task that talks to a destination: tried again when the destination was down."""
    return _task(run_name, PUBLISH_RETRIES)


def upload_task(run_name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """The same for what begins with `pause_before_retry`: Prefect's own pauses cannot be cut short by a stop."""
    return _task(run_name, PUBLISH_RETRIES, pause_s=0.0)


def count_retries() -> int:
    """How often the present task was tried before."""
    return max(0, (present_run.run_count or 1) - 1)


def pause_before_retry(stop: threading.Event) -> None:
    """Waits longer before every attempt, by chance a little more, unless the run is stopped."""
    if retries := count_retries():
        stop.wait(BACKOFF_S * 2 ** (retries - 1) * random.uniform(1, 1 + JITTER))


def is_transient(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether what ended a task may pass by itself."""
    return isinstance(state.result(raise_on_failure=False), Transient)


def _task(run_name: str, retries: int, pause_s: float | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    return task(
        task_run_name=run_name,
        cache_policy=NO_CACHE,
        retries=retries,
        retry_delay_seconds=exponential_backoff(BACKOFF_S) if pause_s is None else pause_s,
        retry_jitter_factor=JITTER if pause_s is None else None,
        retry_condition_fn=is_transient,
    )
