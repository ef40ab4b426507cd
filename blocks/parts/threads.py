"""Many requests at once, watched from one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

POLL_S = 0.5  # how soon a run that is stopped lets go of its uploads


def run_together(jobs: Iterable[Callable[[], None]], at_once: int, tell: Callable[[], None] = lambda: None) -> None:
    """Runs jobs in threads; calls `tell` now and then, here, and gives up what has not begun once anything fails."""
    with ThreadPoolExecutor(at_once) as pool:
        pending: set[Future[None]] = {pool.submit(job) for job in jobs}
        try:
            while pending:
                done, pending = wait(pending, POLL_S, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                tell()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
