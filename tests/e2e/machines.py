"""A run in processes of its own, with a disk of its own, that may vanish at any instant."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from flowtuner.engine.events import CHECKPOINT, METRIC, PUBLISH, STAGE, Event, read_events
from tasks.units import step_of

RUN = "my run"
LIFE_S = 300.0
NURSERY = multiprocessing.get_context("forkserver")
"""Processes of their own, forked from one that has the imports behind it: they are most of what a short life costs."""
NURSERY.set_forkserver_preload(["flows.train", "blocks.folder", "blocks.s3", "boto3.session"])


@dataclass(frozen=True)
class Life:
    """What one machine did before it vanished, by its own log."""

    resumed: int | None
    reached: int
    saved: tuple[int, ...]
    """The steps of the checkpoints that were written, whole or still being sealed while training went on."""
    verified: tuple[int, ...]
    ended: bool
    seconds: float
    """From the first step to the last checkpoint that was verified."""

    @classmethod
    def of(cls, events: list[Event], ended: bool) -> Life:
        steps = [event.data["step"] for event in events if event.type == METRIC]
        saved = {event.data["step"] for event in events if event.type == CHECKPOINT and not event.data["is_final"]}
        begun = {step_of(Path(event.data["label"])) for event in events if event.type == STAGE and _is_save(event)}
        reached = max(steps, default=0)
        verified = [event for event in events if event.type == PUBLISH and event.data["verified"]]
        began = next((event.time for event in events if event.type == METRIC), 0.0)
        return cls(
            resumed=steps[0] - 1 if steps else None,
            reached=reached,
            saved=tuple(sorted(saved | {step for step in begun if step < reached})),
            verified=tuple(event.data["step"] for event in verified if event.data["what"] != "release"),
            ended=ended,
            seconds=max((event.time for event in verified), default=began) - began,
        )


def live(
    options: dict[str, Any], disk: Path, life_s: float | None, environment: dict[str, str], *, is_early: bool = False
) -> Life:
    """Runs a machine with an empty disk for `life_s` seconds after its first step (or its start), or to the end."""
    values = options | {"output_dir": str(disk / RUN)}
    log = disk / RUN / "logs/events.jsonl"
    disk.mkdir()
    process = NURSERY.Process(target=_train, args=(values, disk / "output.txt", environment))
    process.start()
    try:
        if not is_early:
            wait_for_training(process, log)
        process.join(LIFE_S if life_s is None else life_s)
    finally:
        vanish(process)
    if process.exitcode not in (0, -signal.SIGKILL) or (life_s is None and process.exitcode):
        raise AssertionError((disk / "output.txt").read_text()[-3000:])
    return Life.of(list(read_events(log)) if log.is_file() else [], process.exitcode == 0)


def _is_save(event: Event) -> bool:
    return event.data["key"] == "checkpoint_save" and event.data["status"] == "running" and bool(event.data["label"])


def wait_for_training(process: BaseProcess, log: Path) -> None:
    deadline = time.monotonic() + LIFE_S
    while time.monotonic() < deadline and process.is_alive():
        if log.is_file() and any(event.type == METRIC for event in read_events(log)):
            return
        process.join(0.05)


def vanish(process: BaseProcess) -> None:
    """Ends a machine as a power cut does: everything at once, nobody saves anything."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, timeout=60)
    process.join(60)


def _train(values: dict[str, Any], output: Path, environment: dict[str, str]) -> None:
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()  # the nursery does not know where the server is
    from flows.train import train

    train(config=values)
