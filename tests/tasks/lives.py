"""The lives of a run as its trackers see them: events, appended to a log by one process after the other."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from flowtuner.engine.events import METRIC, VALIDATION, EventLog
from flowtuner.options import LoadedConfig, TrainingConfig
from tasks.trackers import tracked

SECRET = "canary-5167"


def told_to(folder: Path, tracker: str) -> LoadedConfig:
    """A run that tells one tracker, and has a secret."""
    return LoadedConfig(
        TrainingConfig(
            model_family="pixart_sigma",
            model_type="full",
            optimizer="torch-adamw",
            output_dir=folder,
            data_backend_config=folder / "data.json",
            report_to=tracker,
            tracker_project_name="shapes",
            tracker_run_name="first",
            publishing_config=[{"provider": "s3", "bucket": "b", "secret_key": SECRET}],
        )
    )


def train(run: LoadedConfig, steps: range, *, shows: int = 0) -> None:
    """One process life."""
    folder = Path(run.config.output_dir)
    with EventLog(folder / "logs" / "events.jsonl", "run") as events, tracked(events, run):
        for step in steps:
            events.append(METRIC, {"step": step, "loss": 1 / step, "learning_rate": 1e-4, "grad_norm": None})
            if step == shows:
                picture = folder / f"step_{step}_circle_8x6_0.png"
                Image.new("RGB", (8, 6), "red").save(picture)
                events.append(VALIDATION, {"step": step, "images": [str(picture)], "videos": []})
