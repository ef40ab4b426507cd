"""What is proved to stand where: the newest verified checkpoint of each destination, and how far it is behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowtuner.engine.events import PUBLISH, read_events
from flowtuner.publishing.destination import PublishResult

CHECKPOINT = "checkpoint-"


@dataclass(frozen=True)
class Standing:
    """The newest checkpoint or release that a destination was seen to hold, whole."""

    destination: str
    what: str
    step: int
    uri: str | None = None

    def __str__(self) -> str:
        return f"{self.destination} holds {self.what}, verified" + (f": {self.uri}" if self.uri else "")


class Ledger:
    """Keeps account of what was saved and what was verified; several threads write into it."""

    def __init__(self, log: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._saved: dict[int, float] = {}
        self._standings: dict[str, Standing] = {}
        self._verified: set[tuple[str, str]] = set()
        self._listener: Callable[[PublishResult], None] = lambda result: None
        for event in read_events(log) if log else ():
            if event.type == PUBLISH and event.data.get("verified"):
                data = event.data
                self._note(Standing(data["destination"], data["what"], data["step"], data.get("uri")))

    def note_saved(self, step: int) -> None:
        """Notes that a step was saved here and is to be published."""
        with self._lock:
            self._saved.setdefault(step, self._clock())

    def note_verified(self, result: PublishResult) -> None:
        """Notes that a destination holds a unit."""
        with self._lock:
            self._verified.add((result.destination, result.name))
            self._note(Standing(result.destination, result.name, result.step, result.uri))
        self._listener(result)

    def when_verified(self, listener: Callable[[PublishResult], None]) -> None:
        """Has somebody called with whatever is verified from now on."""
        self._listener = listener

    def has_verified(self, destination: str, what: str) -> bool:
        """Whether this very run has seen a destination hold a unit."""
        with self._lock:
            return (destination, what) in self._verified

    def standing(self, destination: str) -> Standing | None:
        """The newest that a destination holds, in this run or from one that it continues."""
        with self._lock:
            return self._standings.get(destination)

    def lag(self, destination: str) -> dict[str, Any]:
        """How far a destination is behind what is saved here: in steps, and in seconds since it fell behind."""
        with self._lock:
            standing = self._standings.get(destination)
            verified = standing.step if standing else 0
            behind = [step for step in self._saved if step > verified]
            since = min((self._saved[step] for step in behind), default=self._clock())
            return {
                "last_verified_step": standing.step if standing else None,
                "publish_lag_steps": max(behind, default=verified) - verified,
                "publish_lag_seconds": round(max(0.0, self._clock() - since), 1),
            }

    def summarize(self, destination: str) -> dict[str, Any]:
        """Where a destination stands, for the report."""
        standing = self.standing(destination)
        return (asdict(standing) if standing else {"destination": destination}) | self.lag(destination)

    def _note(self, found: Standing) -> None:
        held = self._standings.get(found.destination)
        # The release is the same step's as the last checkpoint; that one is what a run goes on from.
        if held is None or (found.step, found.what.startswith(CHECKPOINT)) >= (
            held.step,
            held.what.startswith(CHECKPOINT),
        ):
            self._standings[found.destination] = found
