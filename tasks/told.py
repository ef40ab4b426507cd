"""What a service has been told of a run, kept in the run's folder: an identity, and each kind of event up to a step."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from flowtuner import durable
from flowtuner.engine.events import METRIC, PROGRESS, VALIDATION, Event
from tasks.curves import POSITION

KINDS = (METRIC, PROGRESS, VALIDATION)


class ToldRun:
    """What trackers of services have in common: how far they are, and where that is noted."""

    def __init__(self, told: Told) -> None:
        self.told = told

    @property
    def seq(self) -> int:
        """The last event that was told."""
        return self.told.seq

    def flush(self) -> None:
        """Notes what has been told."""
        self.told.save()


class Told:
    """An output folder is one run there, however often it is resumed; steps that were told are not told again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._place = folder / POSITION
        known = durable.read_json(self._place) if self._place.exists() else {}
        self.id = str(known.get("id") or uuid4().hex)
        self.is_known = bool(known.get("seq"))
        self.seq = int(known.get("seq", 0))
        self._steps = {kind: int(known.get(kind, 0)) for kind in KINDS}
        self.save()  # a run that is killed at once is still the same one

    def is_news(self, event: Event) -> bool:
        """Whether an event has something that was not told yet, which it is now; a resumed run repeats itself."""
        self.seq = event.seq
        step = int(event.data.get("step", 0))
        if event.type not in self._steps or step <= self._steps[event.type]:
            return False
        self._steps[event.type] = step
        return True

    def save(self) -> None:
        """Notes how far everything has been told."""
        durable.write_json(self._place, self._steps | {"id": self.id, "seq": self.seq})
