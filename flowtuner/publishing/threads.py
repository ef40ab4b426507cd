"""Many requests at once, watched from one place."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, wait

from flowtuner.background import in_background

POLL_S = 0.5  # how soon a run that is stopped lets go of its uploads

Job = Callable[[threading.Event], None]


def run_together(jobs: Iterable[Job], at_once: int, tell: Callable[[], None] = lambda: None) -> None:
    """Runs jobs in threads and calls `tell` now and then, here; what that raises stops the jobs, by their event."""
    stop = threading.Event()
    queue = deque(jobs)

    def work() -> None:
        while queue:
            try:
                job = queue.popleft()
            except IndexError:  # somebody else took the last one
                return
            job(stop)

    pending: set[Future[None]] = {in_background(work, "transfer") for _ in range(min(at_once, len(queue)))}
    failure: BaseException | None = None
    is_over = False
    try:
        while pending and failure is None:
            done, pending = wait(pending, POLL_S, FIRST_EXCEPTION)
            failure = next((error for future in done if (error := future.exception())), None)
            if failure is None:
                tell()
        is_over = True
    finally:
        queue.clear()
        # What is under way after a failure may still arrive; who is stopped does not wait for a storage that hangs.
        if is_over:
            wait(pending)
        else:
            stop.set()
    if failure is not None:
        raise failure
