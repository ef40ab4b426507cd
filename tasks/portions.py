"""Caching in portions: each an engine of its own, on this machine or another one that sees the same folders."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from prefect.logging import get_run_logger

from flowtuner.engine.events import EventLog
from flowtuner.engine.launch import Engine
from flowtuner.engine.run import CacheReport, Portion, RunSpec
from tasks.retries import engine_task

FOLDER = "portions"
STOP_FILE = "stop"
POLL_S = 1.0


@engine_task("look at the pictures")
def look_at_data(engine: Engine) -> None:
    """Looks at every picture once, so that no portion has to."""
    engine.look_at_data()


@engine_task("cache portion {number} of {count}")
def fill_portion(spec: RunSpec, number: int, count: int) -> tuple[CacheReport, CacheReport]:
    """Fills one portion; tried again, it goes on where it was."""
    reports = encode_portion(spec, number, count)
    encoded = [report.encoded for report in reports]
    get_run_logger().info("portion %d of %d: %d texts and %d pictures encoded", number, count, *encoded)
    return reports


def encode_portion(spec: RunSpec, number: int, count: int) -> tuple[CacheReport, CacheReport]:
    """Encodes one portion of the captions and pictures, in an engine of its own."""
    portion = Portion(number - 1, count)
    own = portion_spec(spec, number, count)
    own.event_log.parent.mkdir(parents=True, exist_ok=True)
    with (
        contextlib.closing(EventLog(own.event_log, own.run_id)) as events,
        Engine(own, events) as engine,
        _stopped_by(_stop_file(spec), engine),
    ):
        return engine.cache_text(portion), engine.cache_latents(portion)


def portion_spec(spec: RunSpec, number: int, count: int) -> RunSpec:
    """The run as one portion sees it: the same caches, a folder and with it a lock of its own."""
    folder = spec.output_dir / FOLDER / f"{number}-of-{count}"
    return replace(spec, run_id=f"{spec.run_id}-{number}", output_dir=folder)


@contextlib.contextmanager
def stopping_portions(spec: RunSpec) -> Iterator[None]:
    """However it is left early, the portions are told to stop; on a shared folder, those of other machines too."""
    file = _stop_file(spec)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    is_done = False
    try:
        yield
        is_done = True
    finally:
        if not is_done:
            file.touch()


@contextlib.contextmanager
def _stopped_by(file: Path, engine: Engine) -> Iterator[None]:
    left = threading.Event()

    def watch() -> None:
        while not left.wait(POLL_S):
            if file.exists():
                engine.stop()
                return

    watcher = threading.Thread(target=watch, name="portion-stop", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        watcher.join()


def _stop_file(spec: RunSpec) -> Path:
    return spec.output_dir / FOLDER / STOP_FILE
