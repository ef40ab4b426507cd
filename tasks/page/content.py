"""What the events of a run amount to, as the artifacts of its page."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtuner.engine.events import METRIC, NOTIFICATION, PROGRESS, PUBLISH, SCRIPT, STAGE, VALIDATION
from flowtuner.options import LoadedConfig
from tasks.page import text
from tasks.page.chart import draw_curve
from tasks.page.sheet import shrink, shrink_films

KEPT_POINTS = 4000


@dataclass(frozen=True)
class Artifact:
    """One artifact of the run page."""

    key: str
    type: str
    data: float | str
    description: str


class PageContent:
    """Takes note of events in one thread and gives out, in another, what has changed since it was last asked."""

    def __init__(self, loaded: LoadedConfig | None = None) -> None:
        self._lock = threading.Lock()
        self._changed: dict[str, Artifact] = {}
        if loaded:
            self._put("configuration", "markdown", text.describe_configuration(loaded), "The options of this run")
        self._metrics: dict[int, dict[str, Any]] = {}
        self._has_new_metrics = False
        self._published: dict[tuple[str, str], dict[str, Any]] = {}
        self._scripts: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._warnings: dict[str, str] = {}

    def take_note(self, type: str, data: dict[str, Any]) -> None:
        """Lets one event change the page."""
        with self._lock:
            self._take_note(type, data)

    def take(self) -> list[Artifact]:
        """The artifacts that changed; drawing the curve is left until somebody wants to see it."""
        with self._lock:
            if self._has_new_metrics:
                self._show_metrics()
            changed, self._changed = list(self._changed.values()), {}
        return changed

    def _take_note(self, type: str, data: dict[str, Any]) -> None:
        if type == METRIC:
            self._metrics[data["step"]] = data
            self._has_new_metrics = True
        elif type == PROGRESS:
            self._show_progress(data)
        elif type == STAGE and data["total"]:
            percent = 100 * data["current"] / data["total"]
            self._put("progress", "progress", percent, f"{data['label']}: {data['current']} of {data['total']}")
        elif type == VALIDATION:
            self._show_validation(data)
        elif type == PUBLISH:
            self._show_published(data)
        elif type == NOTIFICATION and data["severity"] in ("warning", "error"):
            self._warnings[data["message"]] = data["severity"]
            self._put("warnings", "markdown", text.describe_warnings(self._warnings), "What a person should read")
        elif type == SCRIPT:
            self._scripts[data["script"], data["what"], data["destination"]] = data
            self._put("scripts", "markdown", text.describe_scripts(self._scripts.values()), "Your own scripts")

    def _show_metrics(self) -> None:
        self._thin_metrics()
        rows = [self._metrics[step] for step in sorted(self._metrics)]
        curve = draw_curve([(row["step"], row["loss"]) for row in rows])
        self._put("metrics", "markdown", text.describe_metrics(rows, curve), "Loss curve and newest metrics")
        self._has_new_metrics = False

    def _show_progress(self, data: dict[str, Any]) -> None:
        percent = 100 * data["step"] / max(1, data["total_steps"])
        left = f", {data['eta_s']:.0f} s left" if data.get("eta_s") is not None else ""
        about = f"step {data['step']} of {data['total_steps']}, loss {data['loss']:.4f}, {data['steps_per_s']:.2f} it/s"
        self._put("progress", "progress", percent, about + left)

    def _show_validation(self, data: dict[str, Any]) -> None:
        path = Path(data["sheet"]) if data.get("sheet") else None
        sheet = shrink(path) if path and path.is_file() else None
        films = shrink_films([Path(film) for film in data.get("videos", ())])
        if sheet or films or data.get("error"):
            prompts, error = data.get("prompts", ()), data.get("error")
            markdown = text.describe_validation(data["step"], sheet, prompts, error, films)
            self._put("validation", "markdown", markdown, f"Validation at step {data['step']}")

    def _show_published(self, data: dict[str, Any]) -> None:
        known = self._published.get((data["what"], data["destination"]), {})
        sent = known.get("sent_bytes", 0)  # an upload that is looked at again sends nothing more
        self._published[data["what"], data["destination"]] = data | {"sent_bytes": data.get("sent_bytes") or sent}
        self._put(
            "published", "markdown", text.describe_published(self._published.values()), "What was published where"
        )

    def _put(self, key: str, type: str, data: float | str, description: str) -> None:
        self._changed[key] = Artifact(key, type, data, description)

    def _thin_metrics(self) -> None:
        # A long run must not fill the memory of the process that only watches it.
        while len(self._metrics) > KEPT_POINTS:
            steps = sorted(self._metrics)
            for step in steps[1:-1:2]:
                del self._metrics[step]
