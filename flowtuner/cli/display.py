"""How a run's events look: one progress bar on a terminal, plain lines elsewhere, JSON for machines."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import Any, Protocol

from flowtuner.cli.output import tell, write_json
from flowtuner.engine.events import CHECKPOINT, NOTIFICATION, PROGRESS, PUBLISH, SCRIPT, STAGE, VALIDATION, Event

PROGRESS_EVERY_S = 10.0
CACHE_STAGES = ("text_cache", "vae_cache")


class Display(Protocol):
    """Shows events as they come."""

    def show(self, event: Event) -> None:
        """Shows one event."""

    def close(self) -> None:
        """Leaves the terminal as it was."""


def open_display(as_json: bool) -> Display:
    """The display that suits where the output goes."""
    if as_json:
        return JsonDisplay()
    return BarDisplay() if sys.stderr.isatty() else PlainDisplay()


class JsonDisplay:
    """One JSON object per event and line, on stdout."""

    def show(self, event: Event) -> None:
        """Writes the event."""
        write_json(asdict(event), indent=None)

    def close(self) -> None:
        """Does nothing: every line is complete."""


class PlainDisplay:
    """Lines with the time of day, for logs."""

    def __init__(self) -> None:
        self._progress_told = 0.0
        self._uploads_told: dict[tuple[str, str], float] = {}

    def show(self, event: Event) -> None:
        """Writes a line if the event means something to a person; progress not more often than a log can bear."""
        line = self._describe_progress(event) if event.type == PROGRESS else describe(event)
        if event.type == PUBLISH and event.data.get("total_bytes"):
            line = self._describe_upload(event)
        if line:
            tell(f"{time.strftime('%H:%M:%S', time.localtime(event.time))} {line}")

    def close(self) -> None:
        """Does nothing: every line is complete."""

    def _describe_upload(self, event: Event) -> str | None:
        place = str(event.data.get("destination")), str(event.data.get("what"))
        if event.time - self._uploads_told.get(place, 0.0) < PROGRESS_EVERY_S:
            return None
        self._uploads_told[place] = event.time
        return describe(event)

    def _describe_progress(self, event: Event) -> str | None:
        is_last = event.data.get("step") == event.data.get("total_steps")
        if event.time - self._progress_told < PROGRESS_EVERY_S and not is_last:
            return None
        self._progress_told = event.time
        return describe_progress(event.data)


class BarDisplay:
    """One bar for the stage under way; what matters beyond it scrolls above."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
        )
        self._task = self._progress.add_task("starting", total=None, figures="")
        self._progress.start()

    def show(self, event: Event) -> None:
        """Moves the bar, or prints a line above it."""
        data = event.data
        if event.type == PROGRESS:
            self._move("training", data.get("step"), data.get("total_steps"), describe_figures(data))
        elif event.type == STAGE and data.get("status") == "running":
            self._move(str(data.get("label") or data.get("key")), data.get("current"), data.get("total"), "")
        elif line := describe(event):
            self._console.print(line, markup=False)

    def close(self) -> None:
        """Stops the bar where it stands."""
        self._progress.stop()

    def _move(self, label: str, current: Any, total: Any, figures: str) -> None:
        self._progress.update(
            self._task, description=label, completed=current or 0, total=total or None, figures=figures
        )


def describe(event: Event) -> str | None:
    """One line for an event a person wants to know of, None for the others."""
    data = event.data
    if event.type == STAGE:
        return _describe_stage(data)
    if event.type == CHECKPOINT:
        what = "final weights" if data.get("is_final") else "checkpoint"
        return f"{what} at step {data.get('step')}: {data.get('path')}"
    if event.type == VALIDATION and data.get("sheet"):
        return f"validation at step {data.get('step')}: {data.get('sheet')}"
    if event.type == PUBLISH:
        return describe_upload(data)
    if event.type == SCRIPT and data.get("state") == "completed":
        return f"{data.get('script')} for {data.get('what')}: done in {data.get('seconds')} s"
    if event.type == NOTIFICATION:
        return f"{data.get('severity')}: {data.get('message')}"
    return None


def describe_progress(data: dict[str, Any]) -> str:
    """The position of training and its figures."""
    return f"step {data.get('step')}/{data.get('total_steps')}, {describe_figures(data)}"


def describe_figures(data: dict[str, Any]) -> str:
    """Loss, learning rate, speed and time to go; what is not known yet is left out."""
    figures = (
        _figure("loss {:.4f}", data.get("loss")),
        _figure("lr {:.2e}", data.get("learning_rate")),
        _figure("{:.2f} it/s", data.get("steps_per_s")),
        f"ETA {format_duration(data['eta_s'])}" if data.get("eta_s") is not None else "",
    )
    return ", ".join(filter(None, figures))


def describe_upload(data: dict[str, Any]) -> str | None:
    """How one upload goes on: it begins, it is part of the way, it stands there verified, it is tried again."""
    what = f"{data.get('what')} to {data.get('destination')}"
    if data.get("verified"):
        verb = "already there:" if data.get("sent_bytes") == 0 and data.get("bytes") else "pushed"
        return f"{verb} {describe_publish(data).removeprefix('published ')}"
    if data.get("state") != "uploading":
        return describe_publish(data)
    if data.get("message"):
        return f"upload of {what} is tried again: {data['message']}"
    if data.get("total_bytes"):
        return f"upload of {what}: {100 * data['done_bytes'] / data['total_bytes']:.0f} %"
    return f"pushing {what}: {_count_files(data)}"


def describe_publish(data: dict[str, Any]) -> str:
    """What became of one upload."""
    what = f"{data.get('what')} to {data.get('destination')}"
    if data.get("state") == "verified" or data.get("verified"):
        return f"published {what}: {_count_files(data)}, verified, {data.get('uri') or 'no address'}"
    return f"not published: {what}: {data.get('message') or data.get('state')}"


def format_duration(seconds: float) -> str:
    """Hours, minutes and seconds as a person writes them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_bytes(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _count_files(data: dict[str, Any]) -> str:
    files = data.get("files") or 0
    return f"{files} file{'' if files == 1 else 's'}, {format_bytes(data.get('bytes') or 0)}"


def _describe_stage(data: dict[str, Any]) -> str | None:
    label, total = data.get("label") or data.get("key"), data.get("total")
    if data.get("status") == "failed":
        return f"failed: {label}"
    if data.get("status") == "completed" and data.get("key") in CACHE_STAGES:
        return f"{label} ({data.get('current')} of {total})" if total else str(label)
    return None


def _figure(pattern: str, value: Any) -> str:
    return pattern.format(value) if isinstance(value, int | float) else ""
