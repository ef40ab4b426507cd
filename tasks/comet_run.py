"""Comet: an experiment there for each output folder, on the same axis of steps however often it is resumed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from flowtuner.engine.events import VALIDATION, Event
from flowtuner.errors import FlowtunerError
from flowtuner.options import LoadedConfig
from tasks.curves import read_curves
from tasks.told import Told, ToldRun

# What the library would gather by itself: this machine's code, git, arguments and output are nobody's business there.
UNASKED = (
    *("log_code", "log_graph", "parse_args", "log_git_metadata", "log_git_patch"),
    *("log_env_details", "log_env_gpu", "log_env_host", "log_env_cpu", "log_env_network", "log_env_disk"),
    *("auto_output_logging", "auto_param_logging", "auto_metric_logging", "auto_log_co2"),
)


class CometRun(ToldRun):
    """One experiment there; steps that it has been told are not told again."""

    def __init__(self, experiment: Any, told: Told) -> None:
        super().__init__(told)
        self._experiment = experiment

    @classmethod
    def open(cls, folder: Path, loaded: LoadedConfig) -> Self:
        """Begins an experiment, or goes on with this folder's; settings go along without secrets."""
        import comet_ml

        told = Told(folder)
        config = loaded.config
        settings = comet_ml.ExperimentConfig(
            name=config.tracker_run_name,
            offline_directory=str(folder),
            display_summary_level=0,
            **dict.fromkeys(UNASKED, False),
        )
        with _translated():
            experiment = comet_ml.start(
                project_name=config.tracker_project_name,
                experiment_key=told.id,
                mode="get_or_create",
                experiment_config=settings,
            )
            if not told.is_known:
                experiment.log_parameters(loaded.redacted()["config"])
        return cls(experiment, told)

    def take_note(self, event: Event) -> None:
        """Tells losses, speed and validation pictures."""
        if not self.told.is_news(event):
            return
        with _translated():
            if event.type == VALIDATION:
                self._show(event)
            else:
                self._experiment.log_metrics(read_curves(event), step=int(event.data["step"]))

    def close(self) -> None:
        """Has the library send the rest; offline it leaves an archive that `comet upload` sends later."""
        self.flush()
        with _translated():
            self._experiment.end()

    def _show(self, event: Event) -> None:
        step = int(event.data["step"])
        for path in map(Path, event.data.get("images", ())):
            if path.exists():
                self._experiment.log_image(str(path), name=path.stem, step=step)
        for path in map(Path, event.data.get("videos", ())):
            if path.exists():
                self._experiment.log_video(str(path), name=path.stem, step=step)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    from comet_ml.exceptions import CometException

    try:
        yield
    except CometException as error:
        raise FlowtunerError(f"Comet: {error}") from error
