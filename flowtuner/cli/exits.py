"""What the exit codes mean."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from flowtuner.errors import WOULD_LOSE_RESULTS


class Exit(IntEnum):
    """The codes a script may rely on."""

    OK = 0
    FAILED = 1
    CONFIGURATION = 2
    WOULD_LOSE_RESULTS = 3  # this machine is thrown away, and nothing that outlives it takes the results
    PREEMPTED = 75  # EX_TEMPFAIL: saved; the same command goes on later
    INTERRUPTED = 130


def code_for(faults: Iterable[str]) -> Exit:
    """The code of a run that was refused, from the names of what is wrong with it."""
    return Exit.WOULD_LOSE_RESULTS if WOULD_LOSE_RESULTS in faults else Exit.CONFIGURATION
