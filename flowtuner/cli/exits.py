"""What the exit codes mean."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The codes a script may rely on."""

    OK = 0
    FAILED = 1
    CONFIGURATION = 2
    PREEMPTED = 75  # EX_TEMPFAIL: saved; the same command goes on later
    INTERRUPTED = 130
