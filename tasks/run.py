"""A run while it lasts: its engine, its events, its page, its uploads, and how it ends when somebody stops it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from prefect.exceptions import TerminationSignal
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from flowtuner.engine.events import STATUS, EventLog
from flowtuner.engine.launch import Engine
from flowtuner.engine.plan import Leg, Pace, legs, paced_legs
from flowtuner.engine.run import Checkpoint, Position, RunSpec
from flowtuner.publishing.ephemeral import PACE_S, PACE_SHARE
from flowtuner.publishing.hub import publishing_entries
from flowtuner.publishing.memory import remember_entries
from flowtuner.publishing.resume import ResumePoint
from tasks.cancellation import RunCancelledError, ignored_signals, is_cancelled, watched_for_cancel
from tasks.outbox import Outbox
from tasks.page.live import shown_live
from tasks.preflight import CheckedRun
from tasks.resume import fetch_checkpoint
from tasks.tensorboard import tracked
from tasks.units import Origin, unit_of


@dataclass(frozen=True)
class Run:
    """What the steps of one run share."""

    spec: RunSpec
    engine: Engine
    outbox: Outbox
    origin: Origin
    is_paced: bool = False
    resume: ResumePoint | None = None

    def go_on(self) -> None:
        """Brings the checkpoint here that the run goes on from, if it is not on this disk."""
        if self.resume is not None:
            self.engine.go_on_from(fetch_checkpoint(self.resume, self.spec, self.outbox.events))

    def legs(self, position: Position) -> Iterator[Leg]:
        """The legs that are left from a position."""
        config = self.spec.loaded.config
        where = (position.step, position.total_steps, position.steps_per_epoch)
        if self.is_paced:
            return paced_legs(config, *where, Pace(PACE_S, PACE_SHARE), time.monotonic)
        return legs(config, *where)

    def publish_later(self, saved: Checkpoint) -> None:
        """Has a checkpoint or the release uploaded while training goes on."""
        self.outbox.send(unit_of(self.origin, saved))


@contextlib.contextmanager
def open_run(checked: CheckedRun) -> Iterator[Run]:
    """Opens a run's log, page, outbox and engine; however it is left, the engine saves and the log says how."""
    config = checked.loaded.config
    spec = RunSpec(str(flow_run.get_id() or uuid4()), checked.loaded, checked.output_dir)
    with (
        contextlib.closing(EventLog(spec.event_log, spec.run_id)) as events,
        shown_live(events, spec.loaded),
        tracked(events, config),
    ):
        engine = Engine(spec, events)
        outbox = Outbox(checked.destinations, events, config.checkpoints_total_limit)
        remember_entries(spec.output_dir, publishing_entries(config))
        events.stage("preflight", "completed", "options, model, data, disk and destinations checked")
        for warning in checked.warnings:
            events.notify("warning", warning)
        with _ending_told(engine, events), outbox, _closed(engine), watched_for_cancel():
            engine.start()
            yield Run(spec, engine, outbox, Origin.of(spec), checked.is_paced, checked.resume)


def where_it_stands(output_dir: Path, newest: Checkpoint | None) -> str:
    """Where the newest checkpoint of a stopped run is, and how to go on."""
    if newest is None:
        return (
            "stopped before the first checkpoint; what is cached stays. Start it again with the same options to go on"
        )
    return f"stopped; step {newest.step} is saved in {newest.path}. Start it again with the same options to go on"


@contextlib.contextmanager
def _closed(engine: Engine) -> Iterator[None]:
    try:
        yield
    finally:
        with ignored_signals():  # a second signal must not interrupt the saving that the first one asked for
            engine.close()


@contextlib.contextmanager
def _ending_told(engine: Engine, events: EventLog) -> Iterator[None]:
    events.append(STATUS, {"status": "running", "message": ""})
    try:
        yield
    except (KeyboardInterrupt, TerminationSignal) as stop:
        message = where_it_stands(engine.spec.output_dir, engine.newest_checkpoint)
        is_signal = isinstance(stop, TerminationSignal)
        is_asked_for = not is_signal or is_cancelled(flow_run.get_id())
        _tell(engine, events, "cancelled" if is_asked_for else "preempted", message)
        get_run_logger().warning(message)
        if is_signal and is_asked_for:
            raise RunCancelledError(message) from stop
        raise
    except BaseException as error:
        _tell(engine, events, "failed", str(error))
        raise
    _tell(engine, events, "completed", "")


def _tell(engine: Engine, events: EventLog, status: str, message: str) -> None:
    newest = engine.newest_checkpoint
    path = str(newest.path) if newest else None
    events.append(STATUS, {"status": status, "message": message, "checkpoint": path})
