"""How a run learns that it is cancelled when nobody is left to tell it, and how it is left alone while it saves."""

from __future__ import annotations

import contextlib
import contextvars
import os
import signal
import threading
from collections.abc import Iterator
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run

POLL_S = 3.0
CANCELLED = {StateType.CANCELLING, StateType.CANCELLED}


class RunCancelledError(Exception):
    """The run was stopped because its flow run was cancelled; the text says what is saved."""


@contextlib.contextmanager
def watched_for_cancel(poll_s: float = POLL_S) -> Iterator[None]:
    """Sends this process SIGTERM once the flow run is cancelling; a worker that died cannot do it."""
    run_id = flow_run.get_id()
    if run_id is None or threading.current_thread() is not threading.main_thread():
        yield  # without Prefect's signal handler a SIGTERM would end the process before anything is saved
        return
    stop = threading.Event()
    context = contextvars.copy_context()
    watcher = threading.Thread(
        target=context.run, args=(_watch, UUID(run_id), stop, poll_s), name="cancel-watch", daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        stop.set()


@contextlib.contextmanager
def ignored_signals() -> Iterator[None]:
    """Keeps SIGTERM from interrupting what must be finished; Ctrl-C still does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _ignore)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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


def _watch(run_id: UUID, stop: threading.Event, poll_s: float) -> None:
    while not stop.wait(poll_s):
        if is_cancelled(str(run_id)) and not stop.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _ignore(number: int, frame: object) -> None:
    """A function instead of SIG_IGN, which children would inherit."""
