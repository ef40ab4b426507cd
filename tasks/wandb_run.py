"""Weights & Biases: a run there for each output folder, on the same axis of steps however often it is resumed."""

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

STEP = "step"
START_S, END_S = 30.0, 15.0


class WandbRun(ToldRun):
    """One run there; steps that it has been told are not told again."""

    def __init__(self, run: Any, told: Told) -> None:
        super().__init__(told)
        self._run = run

    @classmethod
    def open(cls, folder: Path, loaded: LoadedConfig) -> Self:
        """Begins a run, or goes on with the one that this folder belongs to; settings go along without secrets."""
        import wandb

        told = Told(folder)
        config = loaded.config
        with _translated():
            run = wandb.init(
                project=config.tracker_project_name,
                name=config.tracker_run_name,
                id=told.id,
                resume="allow",
                dir=str(folder),
                config=loaded.redacted()["config"],
                settings=wandb.Settings(
                    init_timeout=START_S, finish_timeout=END_S, console="off", silent=True, disable_git=True
                ),
            )
            run.define_metric(STEP, hidden=True)
            run.define_metric("*", step_metric=STEP)
        return cls(run, told)

    def take_note(self, event: Event) -> None:
        """Tells losses, speed and validation pictures."""
        if self.told.is_news(event):
            shown = _pictures(event) if event.type == VALIDATION else read_curves(event)
            with _translated():
                self._run.log({STEP: int(event.data["step"])} | shown)

    def close(self) -> None:
        """Has the library send the rest; where the network is away, `wandb sync` sends it later."""
        self.flush()
        with _translated():
            self._run.finish()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    import wandb

    try:
        yield
    except wandb.Error as error:
        raise FlowtunerError(f"W&B: {error}") from error


def _pictures(event: Event) -> dict[str, Any]:
    import wandb

    shown: dict[str, Any] = {}
    for kind, make in (("images", wandb.Image), ("videos", wandb.Video)):
        for path in map(Path, event.data.get(kind, ())):
            with contextlib.suppress(FileNotFoundError):  # cleared away by a person
                shown.setdefault(f"validation/{kind}", []).append(make(str(path), caption=path.stem))
    return shown
