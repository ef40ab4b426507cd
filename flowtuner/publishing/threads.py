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
    try:
        pending: set[Future[None]] = {pool.submit(job, stop) for job in jobs}
        while pending:
            done, pending = wait(pending, POLL_S, FIRST_EXCEPTION)
            for future in done:
                future.result()
            _tell(tell, stop)
    finally:
        # What is under way after a failure may still arrive; who is stopped does not wait for a storage that hangs.
        pool.shutdown(wait=not stop.is_set(), cancel_futures=True)


def _tell(tell: Callable[[], None], stop: threading.Event) -> None:
    is_told = False
    try:
        tell()
        is_told = True
    finally:
        if not is_told:
            stop.set()
