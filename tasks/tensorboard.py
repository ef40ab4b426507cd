"""TensorBoard: a reader of the event log that writes curves and validation pictures for it, offline."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import Any

from flowtuner import durable
from flowtuner.engine.events import METRIC, PROGRESS, VALIDATION, Event
from tasks.curves import POSITION, read_curves

STEP_IN_NAME = re.compile(r"^step_\d+_")


class Board:
    """The files of one folder; goes on where the last process left off, each step of the run once."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._events, self._summaries = event_pb2, summary_pb2
        self._place = folder / POSITION
        known = durable.read_json(self._place) if self._place.exists() else {}
        self.seq = int(known.get("seq", 0))
        self._step = int(known.get("step", 0))
        self._pictured = int(known.get("pictured", 0))
        self._writer = EventFileWriter(str(folder))
        # What a killed process wrote after it last noted its place comes again.
        self._rewind(self._step + 1)

    def take_note(self, event: Event) -> None:
        """Writes what an event has to show."""
        step = int(event.data.get("step", 0))
        if event.type == METRIC:
            if step <= self._step:  # resumed from an earlier checkpoint
                self._rewind(step)
            self._step = step
            self._draw(event)
        elif event.type == PROGRESS:
            self._draw(event)
        elif event.type == VALIDATION and step > self._pictured:
            self._pictured = step
            self._show([Path(image) for image in event.data.get("images", ())], event)
        self.seq = event.seq

    def flush(self) -> None:
        """Brings everything to the disk, and then notes how far that is."""
        self._writer.flush()
        durable.write_json(self._place, {"seq": self.seq, "step": self._step, "pictured": self._pictured})

    def close(self) -> None:
        """Flushes and closes the file."""
        self.flush()
        self._writer.close()

    def _rewind(self, step: int) -> None:
        # Readers drop everything from this step on when they meet this mark.
        self._pictured = min(self._pictured, step - 1)
        mark = self._events.SessionLog(status=self._events.SessionLog.START)
        self._writer.add_event(self._events.Event(wall_time=time.time(), step=step, session_log=mark))

    def _draw(self, event: Event) -> None:
        values = read_curves(event).items()
        self._add([self._summaries.Summary.Value(tag=tag, simple_value=value) for tag, value in values], event)

    def _show(self, images: list[Path], event: Event) -> None:
        values = []
        for path in images:
            with contextlib.suppress(FileNotFoundError):  # cleared away by a person
                png = path.read_bytes()
                image = self._summaries.Summary.Image(**_size_of(png), colorspace=3, encoded_image_string=png)
                values.append(self._summaries.Summary.Value(tag=_tag_of(path), image=image))
        self._add(values, event)

    def _add(self, values: list[Any], event: Event) -> None:
        summary = self._summaries.Summary(value=values)
        step = int(event.data["step"])
        self._writer.add_event(self._events.Event(wall_time=event.time, step=step, summary=summary))


def _tag_of(image: Path) -> str:
    return f"validation/{STEP_IN_NAME.sub('', image.stem)}"


def _size_of(png: bytes) -> dict[str, int]:
    # The first chunk of every PNG begins with its width and height.
    return {"width": int.from_bytes(png[16:20], "big"), "height": int.from_bytes(png[20:24], "big")}
