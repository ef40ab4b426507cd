"""What trackers draw of a run, under the names that they draw it by, and where they note how far they are."""

from __future__ import annotations

from flowtuner.engine.events import METRIC, PROGRESS, Event

POSITION = "position.json"
CURVES = {
    METRIC: {"train_loss": "loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm"},
    PROGRESS: {"steps_per_s": "steps_per_s"},
}


def read_curves(event: Event) -> dict[str, float]:
    """The figures in an event; those that are not known are left out."""
    found = {tag: event.data.get(name) for tag, name in CURVES.get(event.type, {}).items()}
    return {tag: value for tag, value in found.items() if value is not None}
