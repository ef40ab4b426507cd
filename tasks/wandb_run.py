"""Weights & Biases: a run there for each output folder, on the same axis of steps however often it is resumed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from flowtuner import durable
from flowtuner.engine.events import METRIC, PROGRESS, VALIDATION, Event
from flowtuner.errors import FlowtunerError
from flowtuner.options import LoadedConfig
from tasks.curves import POSITION, read_curves

STEP = "step"
START_S, END_S = 30.0, 15.0


class WandbRun:
    """One run there; steps that it has been told are not told again."""

    def __init__(self, folder: Path, run: Any, known: dict[str, Any]) -> None:
        self._place = folder / POSITION
        self._run = run
        self._known = known
        self.seq = int(known["seq"])
        self._told = {name: int(known[name]) for name in (METRIC, PROGRESS, VALIDATION)}

    @classmethod
    def open(cls, folder: Path, loaded: LoadedConfig) -> Self:
        """Begins a run, or goes on with the one that this folder belongs to; settings go along without secrets."""
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        known: dict[str, Any] = {"id": uuid4().hex[:12], "seq": 0, METRIC: 0, PROGRESS: 0, VALIDATION: 0}
        if (folder / POSITION).exists():
            known |= durable.read_json(folder / POSITION)
        durable.write_json(folder / POSITION, known)  # a run that is killed at once is still the same one
        config = loaded.config
        with _translated():
            run = wandb.init(
                project=config.tracker_project_name,
                name=config.tracker_run_name,
                id=known["id"],
                resume="allow",
                dir=str(folder),
                config=loaded.redacted()["config"],
                settings=wandb.Settings(
                    init_timeout=START_S, finish_timeout=END_S, console="off", silent=True, disable_git=True
                ),
            )
            run.define_metric(STEP, hidden=True)
            run.define_metric("*", step_metric=STEP)
        return cls(folder, run, known)

    def take_note(self, event: Event) -> None:
        """Tells losses, speed and validation pictures."""
        step = int(event.data.get("step", 0))
        # A resumed run makes the same steps again, with the same numbers.
        if event.type in self._told and step > self._told[event.type]:
            self._told[event.type] = step
            with _translated():
                self._run.log({STEP: step} | (_pictures(event) if event.type == VALIDATION else read_curves(event)))
        self.seq = event.seq

    def flush(self) -> None:
        """Notes what has been told."""
        durable.write_json(self._place, self._known | self._told | {"seq": self.seq})

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
