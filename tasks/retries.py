"""When a task is tried again: a type test on our own errors."""

from __future__ import annotations

import random
import threading
import time
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
LONGEST_PAUSE_S = 20.0
JITTER = 0.5
PATIENCE_S = 600.0  # longer than most outages last
WITHOUT_END = 10_000

P = ParamSpec("P")
R = TypeVar("R")


class Patience:
    """How long an upload that gets no further is tried again; every byte more renews it."""

    def __init__(self, seconds: float = PATIENCE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._since = clock()
        self._most = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing has moved for too long."""
        return self._clock() - self._since >= self.seconds

    def begin(self) -> None:
        """Counts from now on: what waited for its turn was not in vain."""
        self._since = self._clock()

    def note(self, done: int) -> None:
        """Notes how far it is; what an earlier attempt had sent already is no progress."""
        if done > self._most:
            self._most = done
            self.begin()


def engine_task(run_name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task that is handed the live engine: never cached, tried again when the engine died."""
    return _task(run_name, ENGINE_RETRIES)


def publish_task(run_name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task that talks to a destination: tried again when the destination was down."""
    return _task(run_name, PUBLISH_RETRIES)


def upload_task(run_name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """The same for what begins with `pause_before_retry`: Prefect's own pauses cannot be cut short by a stop."""
    return task(
        task_run_name=run_name,
        cache_policy=NO_CACHE,
        retries=WITHOUT_END,
        retry_delay_seconds=0.0,
        retry_condition_fn=is_transient,
    )


def count_retries() -> int:
    """How often the present task was tried before."""
    return max(0, (present_run.run_count or 1) - 1)


def pause_before_retry(stop: threading.Event) -> None:
    """Waits longer before every attempt, by chance a little more, unless the run is stopped."""
    if retries := count_retries():
        pause_s = min(BACKOFF_S * 2 ** min(retries - 1, 10), LONGEST_PAUSE_S)
        stop.wait(pause_s * random.uniform(1, 1 + JITTER))


def is_transient(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether what ended a task may pass by itself."""
    return isinstance(state.result(raise_on_failure=False), Transient)


def _task(run_name: str, retries: int) -> Callable[[Callable[P, R]], Task[P, R]]:
    return task(
        task_run_name=run_name,
        cache_policy=NO_CACHE,
        retries=retries,
        retry_delay_seconds=exponential_backoff(BACKOFF_S),
        retry_jitter_factor=JITTER,
        retry_condition_fn=is_transient,
    )
