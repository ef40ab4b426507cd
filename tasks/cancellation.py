"""How a run learns that it is cancelled, or that its time is over, when nobody is left to tell it."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run

from tasks.grace import Grace

POLL_S = 2.0
CANCELLED = {StateType.CANCELLING, StateType.CANCELLED}


class RunCancelledError(Exception):
    """The run was stopped before its end by somebody's wish; the text says what is saved."""

    def __init__(self, message: str, state: str = "Cancelled") -> None:
        super().__init__(message)
        self.state = state


@contextlib.contextmanager
def watched_for_cancel(grace: Grace, look: Callable[[UUID], None], poll_s: float = POLL_S) -> Iterator[None]:
    """Stops the run once its flow run is cancelling; a worker that died cannot do it.

    While it is at it, it has `look` see what else somebody wants of the run.
    """
    run_id = flow_run.get_id()
    if run_id is None or threading.current_thread() is not threading.main_thread():
        yield  # without a signal handler of ours a SIGTERM would end the process before anything is saved
        return
    stop = threading.Event()
    context = contextvars.copy_context()
    watcher = threading.Thread(
        target=context.run, args=(_watch, UUID(run_id), grace, look, stop, poll_s), name="cancel-watch", daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        stop.set()


@contextlib.contextmanager
def limited(grace: Grace, seconds: float | None) -> Iterator[None]:
    """Stops the run so early that it is gone when its time is over."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    timer = threading.Timer(max(0.0, seconds - grace.seconds), grace.ask, ("time limit",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def is_cancelled(run_id: str | None) -> bool:
    """Whether the server says that a flow run is being cancelled."""
    if run_id is None:
        return False
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(run_id)).state
    except (httpx.HTTPError, PrefectException):
        return False
    return state is not None and state.type in CANCELLED


def _watch(run_id: UUID, grace: Grace, look: Callable[[UUID], None], stop: threading.Event, poll_s: float) -> None:
    while not stop.wait(poll_s):
        if is_cancelled(str(run_id)) and not stop.is_set():
            grace.ask("cancelled", is_repeated=True)  # the worker, if it lives, sends a signal of its own
            return
        look(run_id)
