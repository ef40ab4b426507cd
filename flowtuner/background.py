"""Calls in threads that nobody has to wait for: not those who gave up on them, and not the end of the process."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


def in_background(call: Callable[[], T], name: str) -> Future[T]:
    """Starts a call in a thread of its own; its result or exception goes to whoever asks for it.

    The interpreter waits for the threads of a ThreadPoolExecutor, even for one that hangs in a request.
    """
    future: Future[T] = Future()
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(_fulfil, future, call), name=name, daemon=True).start()
    return future


class _HandedOver(AbstractContextManager[None]):
    """Gives what is raised to the future instead of to the thread, where nobody would see it."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None:
            self._future.set_exception(error)
        return True


def _fulfil(future: Future[T], call: Callable[[], T]) -> None:
    with _HandedOver(future):
        future.set_result(call())
