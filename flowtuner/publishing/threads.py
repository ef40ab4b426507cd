"""Many requests at once, watched from one place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

POLL_S = 0.5  # how soon a run that is stopped lets go of its uploads

Job = Callable[[threading.Event], None]


def run_together(jobs: Iterable[Job], at_once: int, tell: Callable[[], None] = lambda: None) -> None:
    """Runs jobs in threads and calls `tell` now and then, here; what that raises stops the jobs, by their event."""
    stop = threading.Event()
    pool = ThreadPoolExecutor(at_once)
    failure: BaseException | None = None
    is_over = False
    try:
        pending: set[Future[None]] = {pool.submit(job, stop) for job in jobs}
        while pending and failure is None:
            done, pending = wait(pending, POLL_S, FIRST_EXCEPTION)
            failure = next((error for future in done if (error := future.exception())), None)
            if failure is None:
                tell()
        is_over = True
    finally:
        if not is_over:
            stop.set()
        # What is under way after a failure may still arrive; who is stopped does not wait for a storage that hangs.
        pool.shutdown(wait=is_over, cancel_futures=True)
    if failure is not None:
        raise failure
