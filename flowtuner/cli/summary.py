"""What a run came to, gathered from its events, and the last lines that say it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowtuner.cli.display import describe_publish, format_duration
from flowtuner.engine.events import CHECKPOINT, NOTIFICATION, PROGRESS, PUBLISH, STATUS, VALIDATION, Event


@dataclass
class Summary:
    """The newest of everything that a run reported."""

    output_dir: Path
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    status: str = ""
    checkpoint: str | None = None
    release: str | None = None
    sheet: str | None = None
    warnings: int = 0
    places: tuple[str, ...] = ()
    published: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """Remembers what an event says."""
        data = event.data
        if event.type == PROGRESS:
            self.step, self.total_steps = data.get("step", self.step), data.get("total_steps", self.total_steps)
            self.loss = data.get("loss", self.loss)
        elif event.type == CHECKPOINT and data.get("is_final"):
            self.release = data.get("path")
        elif event.type == CHECKPOINT:
            self.checkpoint, self.step = data.get("path"), data.get("step", self.step)
        elif event.type == VALIDATION:
            self.sheet = data.get("sheet") or self.sheet
        elif event.type == PUBLISH:
            self.published[str(data.get("destination")), str(data.get("what"))] = data
        elif event.type == STATUS:
            self.status = str(data.get("status"))
            self.places = tuple(data.get("places", ()))
        elif event.type == NOTIFICATION:
            self.warnings += 1

    def describe_results(self, seconds: float) -> list[str]:
        """Where everything is after a run that completed."""
        loss = "" if self.loss is None else f", last loss {self.loss:.4f}"
        steps = f": trained to step {self.step} of {self.total_steps}{loss}" if self.total_steps else ""
        lines = [f"Done in {format_duration(seconds)}{steps}.", f"Results:     {self.output_dir}"]
        if self.checkpoint:
            lines.append(f"Checkpoint:  {self.checkpoint}")
        if self.sheet:
            lines.append(f"Validation:  {self.sheet}")
        return lines + [f"Publishing:  {line}" for line in self.describe_publishing()]

    def describe_publishing(self) -> list[str]:
        """What failed, and for each destination the release and the newest checkpoint; older ones are counted."""
        failed = [data for data in self.published.values() if not data.get("verified")]
        newest: dict[tuple[str, bool], dict[str, Any]] = {}
        older: Counter[str] = Counter()
        for (destination, what), data in self.published.items():
            place = destination, what.startswith("checkpoint-")
            if not data.get("verified"):
                continue
            if place in newest:
                older[destination] += 1
            # A checkpoint may arrive after a newer one, when what the run found there is sent again.
            newest[place] = max(data, newest.get(place, data), key=lambda one: int(one.get("step") or 0))
        lines = [describe_publish(data) for data in (*failed, *newest.values())]
        counted = [(f"{count} older checkpoint{'s' * (count > 1)}", place) for place, count in older.items()]
        return lines + [f"{checkpoints} to {place}, verified" for checkpoints, place in counted]

    def describe_stop(self, how: str) -> str:
        """Where the checkpoint is after a run that was stopped, here and elsewhere, and how to go on."""
        newest = self.checkpoint or find_newest_checkpoint(self.output_dir)
        if not newest:
            return f"{how} before the first checkpoint. The same command starts again; what is cached stays cached."
        said = f"{how}. The checkpoint is {newest}; the same command goes on from there."
        return "\n".join((said, *(f"  {place}" for place in self.places)))


def find_newest_checkpoint(output_dir: Path) -> str | None:
    """The newest complete checkpoint in an output folder."""
    from flowtuner.engine.checkpoints import list_checkpoints

    folders = list_checkpoints(output_dir)
    return str(folders[-1]) if folders else None
