"""How many threads reading and decoding may take."""

from __future__ import annotations

import os

MOST_THREADS = 16


def count_threads() -> int:
    """As many as this process may run on: more would only slow the encoder down."""
    if hasattr(os, "sched_getaffinity"):
        return min(MOST_THREADS, len(os.sched_getaffinity(0)))
    return min(MOST_THREADS, os.cpu_count() or 1)
