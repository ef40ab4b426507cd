"""How often somebody may try: a sliding window per address and per account, in this process."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from fastapi import Request

from flowtuner.api.errors import ApiError

SWEEP_ABOVE = 10_000


class RateLimiter:
    """Counts attempts; one more than allowed is answered with 429."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._attempts: dict[tuple[str, str], deque[float]] = {}

    def count(self, kind: str, who: str, calls: int, period_s: float = 60.0) -> None:
        """Notes an attempt; 429 if there were too many."""
        if calls <= 0:
            return
        moment = self._clock()
        with self._lock:
            if len(self._attempts) > SWEEP_ABOVE:
                self._attempts = {key: found for key, found in self._attempts.items() if moment - found[-1] < period_s}
            times = self._attempts.setdefault((kind, who), deque())
            while times and moment - times[0] >= period_s:
                times.popleft()
            if len(times) < calls:
                times.append(moment)
                return
            wait_s = max(1, round(period_s - (moment - times[0]) + 0.5))
        headers = {
            "Retry-After": str(wait_s),
            "X-RateLimit-Limit": str(calls),
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": str(wait_s),
        }
        raise ApiError(429, "too_many_requests", f"Too many attempts: try again in {wait_s} s", headers=headers)


class Limited:
    """A dependency: no more than so many calls a minute from one address."""

    def __init__(self, kind: str, calls: int) -> None:
        self.kind = kind
        self.calls = calls

    def __call__(self, request: Request) -> None:
        """Counts, or 429."""
        limiter: RateLimiter = request.app.state.limiter
        limiter.count(self.kind, request.client.host if request.client else "", self.calls)
