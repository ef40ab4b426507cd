"""What was found out a moment ago and is still so: nothing was written since, here, and other servers get a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from starlette.concurrency import run_in_threadpool

from flowtuner.records.database import Database

T = TypeVar("T")
LASTING_S = 1.0
MOST = 2000


@dataclass
class Memory:
    """Answers by question; used from the server's event loop alone."""

    database: Database
    clock: Callable[[], float] = time.monotonic
    _known: dict[Hashable, tuple[int, float, Any]] = field(default_factory=dict)

    async def ask(self, question: Hashable, look_up: Callable[[], T]) -> T:
        """The answer that still holds, or the one that is looked up now; that there is none is looked up each time."""
        generation, until, answer = self._known.get(question, (-1, 0.0, None))
        if answer is not None and generation == self.database.generation and self.clock() < until:
            return cast("T", answer)
        generation = self.database.generation
        found = await run_in_threadpool(look_up)
        if found is not None:
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[question] = generation, self.clock() + LASTING_S, found
        return found
