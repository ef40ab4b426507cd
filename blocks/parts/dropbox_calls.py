"""Calls to Dropbox's SDK with patience: what may pass is tried again within limits, and a stopped run does not wait."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from dropbox import exceptions

from blocks.parts.dropbox_errors import RAISED, is_passing
from flowtuner.background import in_background
from flowtuner.publishing.threads import POLL_S

R = TypeVar("R")


@dataclass(frozen=True)
class Patience:
    """How often something is tried, and how long is waited in between; what the service asks for goes first."""

    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    longest_asked_s: float = 120.0

    def wait_s(self, error: BaseException, attempt: int) -> float | None:
        """How long to wait after a failed attempt (counted from 0); None if there is to be no other."""
        if attempt + 1 >= self.attempts:
            return None
        asked = error.backoff if isinstance(error, exceptions.RateLimitError) else None
        if asked is not None:
            return float(asked) if asked <= self.longest_asked_s else None
        wait_s = min(self.first_wait_s * 2.0**attempt, self.longest_wait_s)
        return wait_s * random.uniform(0.5, 1)


class Calls:
    """The SDK's methods; while one runs or is waited for, `tell` is called, and what it raises ends the wait."""

    def __init__(self, client: Any, patience: Patience) -> None:
        self.client = client
        self.tell: Callable[[], None] = lambda: None
        self._patience = patience
        self._never = threading.Event()

    def __call__(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Calls a method that may be called twice."""
        return self.patiently(lambda: self.once(method, *arguments, **named))

    def once(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Calls a method in a thread of its own, so that a service that hangs holds nobody up who is stopped."""
        answer = in_background(partial(getattr(self.client, method), *arguments, **named), method)
        while not wait([answer], POLL_S).done:
            self.tell()
        return answer.result()

    def patiently(self, job: Callable[[], R]) -> R:
        """Does something as a whole, and again if what went wrong may pass."""
        attempt = 0
        while True:
            try:
                return job()
            except RAISED as error:
                self.wait_after(error, attempt)
                attempt += 1

    def wait_after(self, error: BaseException, attempt: int) -> None:
        """Waits before the next attempt; raises the error if there is to be none."""
        wait_s = self._patience.wait_s(error, attempt) if is_passing(error) else None
        if wait_s is None:
            raise error
        self.wait(wait_s)

    def wait(self, wait_s: float | None = None) -> None:
        """Waits, a moment if not told how long; whoever is stopped meanwhile does not wait for the end."""
        left_s = self._patience.first_wait_s if wait_s is None else wait_s
        while left_s > 0:
            self.tell()
            self._never.wait(min(left_s, POLL_S))
            left_s -= POLL_S
