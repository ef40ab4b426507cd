"""What was found out a moment ago and is still so: nothing was written since, here, and other servers get a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from flowtuner.records.database import Database

LASTING_S = 1.0
MOST = 2000


@dataclass
class Memory:
    """Answers by question; used from the server's event loop alone."""

    database: Database
    clock: Callable[[], float] = time.monotonic
    _known: dict[Hashable, tuple[int, float, Any]] = field(default_factory=dict)

    def recall(self, question: Hashable) -> Any:
        """The answer, or None if there is none that still holds."""
        generation, until, answer = self._known.get(question, (-1, 0.0, None))
        return answer if generation == self.database.generation and self.clock() < until else None

    def keep(self, question: Hashable, answer: Any, generation: int) -> None:
        """Keeps an answer that was looked up when the database was at this generation."""
        if len(self._known) >= MOST:
            self._known.clear()
        self._known[question] = generation, self.clock() + LASTING_S, answer
