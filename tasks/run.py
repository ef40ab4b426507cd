"""A run while it lasts: its engine, its events, its page, its uploads, and how it ends when somebody stops it."""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from uuid import uuid4

from prefect.exceptions import TerminationSignal
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from flowtuner.engine.checkpoints import NAME, list_checkpoints
from flowtuner.engine.events import STATUS, EventLog
from flowtuner.engine.launch import Engine
from flowtuner.engine.orders import CHECKPOINT, VALIDATE
from flowtuner.engine.plan import Leg, Pace, legs, paced_legs
from flowtuner.engine.run import Checkpoint, Position, RunSpec
from flowtuner.errors import FlowtunerError, PublishError
from flowtuner.publishing.ephemeral import PACE_S, PACE_SHARE
from flowtuner.publishing.hub import publishing_entries
from flowtuner.publishing.memory import remember_entries
from flowtuner.publishing.snapshot import WHOLE, claimed_spool
from tasks.cancellation import RunCancelledError, is_cancelled, limited, watched_for_cancel
from tasks.checkpoint import save_checkpoint
from tasks.delivery import delivered
from tasks.grace import Grace, Reason
from tasks.hold import hold
from tasks.ledger import Ledger
from tasks.orders import Orders
from tasks.outbox import Delivery, Outbox
from tasks.page.live import shown_live
from tasks.preflight import CheckedRun
from tasks.report import Outcome, confirm, write_report
from tasks.resume import fetch_checkpoint
from tasks.scripts import Scripts
from tasks.trackers import tracked
from tasks.units import Origin, find_newest, folder_unit_of, step_of, unit_of, units_on_disk
from tasks.validate import validate
from tasks.webhooks import announced

STATES = MappingProxyType({"time limit": "Stopped"})
"""How Prefect calls the end of a run that was stopped on purpose, if not Cancelled."""


@dataclass(frozen=True)
class Run:
    """What the steps of one run share."""

    spec: RunSpec
    engine: Engine
    outbox: Outbox
    origin: Origin
    checked: CheckedRun
    scripts: Scripts
    orders: Orders

    def go_on(self) -> None:
        """Brings the checkpoint here that the run goes on from, if it is not on this disk."""
        if self.checked.found.resume is not None:
            self.engine.go_on_from(fetch_checkpoint(self.checked.found.resume, self.spec, self.outbox.events))

    def legs(self, position: Position) -> Iterator[Leg]:
        """The legs that are left from a position."""
        config = self.spec.loaded.config
        where = (position.step, position.total_steps, position.steps_per_epoch)
        if self.checked.found.is_paced:
            return paced_legs(config, *where, Pace(PACE_S, PACE_SHARE), time.monotonic)
        return legs(config, *where)

    def validate(self, step: int) -> None:
        """Renders the validation prompts here, or has the user's own script do it."""
        if self.spec.loaded.config.validation_method == "external-script":
            self.engine.settle()
            self.scripts.validate(step, self.newest_checkpoint())
        else:
            validate(self.engine, step)

    def obey(self, step: int, saved_step: int) -> int:
        """Carries out what people asked for meanwhile; answers with the step that the newest checkpoint holds."""
        asked = self.orders.take()
        if wishes := asked.get(CHECKPOINT):
            if saved_step != step:
                save_checkpoint(self.engine, step, self.unpublished(), waits=True)
            self.orders.done(wishes, f"done: step {step} is saved")
            saved_step = step
        if wishes := asked.get(VALIDATE):
            self.validate(step)
            self.publish_folder_later(step)
            self.orders.done(wishes, f"done at step {step}")
        return saved_step

    def outcome(self, step: int, loss: float | None, release: Checkpoint | None, at_risk: int) -> Outcome:
        """What the report says of the run, once the user's scripts have ended too."""
        ledger, destinations = self.outbox.ledger, self.outbox.destinations
        return Outcome(
            self.spec.run_id,
            self.spec.output_dir,
            step,
            loss,
            release.path if release else None,
            at_risk,
            scripts=tuple(self.scripts.finish()),
            destinations=tuple(ledger.summarize(destination.name) for destination in destinations),
        )

    def newest_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint of this run, or of the one that it continues."""
        return self.engine.newest_checkpoint or find_newest(self.spec.output_dir)

    def unpublished(self) -> list[str]:
        """The checkpoints here that are newer than all that is proved to stand elsewhere; none if nothing is to."""
        wanting = [destination for destination in self.outbox.destinations if destination.wants("checkpoint")]
        standings = [self.outbox.ledger.standing(destination.name) for destination in wanting]
        proved = max((standing.step for standing in standings if standing and NAME.fullmatch(standing.what)), default=0)
        present = list_checkpoints(self.spec.output_dir) if wanting else []
        if wanting and (promised := self.engine.promised):
            present.append(promised.path)
        return [folder.name for folder in present if step_of(folder) > proved]

    def publish_later(self, saved: Checkpoint) -> None:
        """Has a checkpoint or the release uploaded while training goes on, and tells the user's own script of it."""
        if not saved.is_final:
            self.scripts.after_checkpoint(saved)
        self.outbox.send(unit_of(self.origin, saved))

    def publish_at_last(self, grace: Grace) -> None:
        """Has the newest checkpoint of a stopped run published while there is time."""
        newest = self.newest_checkpoint()
        try:
            unit = unit_of(self.origin, newest) if newest else None
        except PublishError as error:  # what is to be said about it must not hide the stop
            self.outbox.events.notify("error", str(error))
            unit = None
        self.outbox.finish(unit, grace)

    def settle(self) -> list[Delivery]:
        """Waits for all uploads and proves them; where the machine is thrown away, a failure is not the end yet."""
        units = units_on_disk(self.origin, self.spec.output_dir)
        deliveries = confirm(self.outbox.settle(units))
        minutes = self.spec.loaded.config.hold_on_failure_minutes if self.checked.found.is_ephemeral else 0
        return hold(self.outbox, units, deliveries, 60 * minutes)

    def publish_folder_later(self, step: int) -> None:
        """The same for the whole output folder, where a destination asks for it: with the pictures of a validation.

        One at a time: whatever is left out because the last one is still being sent comes with the next, or at the end.
        """
        is_asked_for = any(destination.wants("folder") for destination in self.outbox.destinations)
        if is_asked_for and not self.outbox.is_being_sent(WHOLE):
            self.outbox.send(folder_unit_of(self.origin, self.spec.output_dir, step))


@contextlib.contextmanager
def open_run(checked: CheckedRun) -> Iterator[Run]:
    """Opens a run's log, page, outbox and engine; however it is left, the engine saves and the log says how."""
    config = checked.loaded.config
    spec = RunSpec(str(flow_run.get_id() or uuid4()), checked.loaded, checked.output_dir)
    with (
        contextlib.closing(EventLog(spec.event_log, spec.run_id)) as events,
        shown_live(events, spec.loaded),
        tracked(events, spec.loaded),
        announced(events, config),
        delivered(events),
        claimed_spool(spec.output_dir),
    ):
        engine = Engine(spec, events, config.grace_seconds)
        outbox = Outbox(checked.found.destinations, events, config.checkpoints_total_limit, Ledger(spec.event_log))
        scripts = Scripts(config, spec.output_dir, events)
        outbox.ledger.when_verified(scripts.after_upload)
        orders = Orders(events, engine.pause)
        run = Run(spec, engine, outbox, Origin.of(spec), checked, scripts, orders)
        remember_entries(spec.output_dir, publishing_entries(config))
        events.stage("preflight", "completed", "options, model, data, disk and destinations checked")
        for warning in checked.found.warnings:
            events.notify("warning", warning)
        grace = Grace(config.grace_seconds)
        with (
            _ending_told(run, grace),
            outbox,
            grace,
            _left_in_order(run, grace),
            watched_for_cancel(grace, orders.look),
            limited(grace, config.max_runtime),
        ):
            # What is told while a task waits for the engine belongs to the run, not to that task.
            own = contextvars.copy_context()
            engine.when_checkpoint(lambda saved: own.run(run.publish_later, saved))
            engine.start()
            yield run


def where_it_stands(newest: Checkpoint | None, places: Sequence[str] = ()) -> str:
    """Where the newest checkpoint of a stopped run is, here and elsewhere, and how to go on."""
    if newest is None:
        return (
            "stopped before the first checkpoint; what is cached stays. Start it again with the same options to go on"
        )
    where = "; ".join((f"stopped; step {newest.step} is saved in {newest.path}", *places))
    return f"{where}. Start it again with the same options to go on"


@contextlib.contextmanager
def _left_in_order(run: Run, grace: Grace) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, TerminationSignal) as stop:
        grace.begin("interrupted" if isinstance(stop, KeyboardInterrupt) else None)
        grace.when_hurried(run.engine.kill)
        run.engine.close()
        run.publish_at_last(grace)
        run.scripts.finish(lambda: grace.left_s)
        raise
    except FlowtunerError:
        run.engine.close()
        run.engine.hand_over()
        raise
    finally:
        run.engine.close()


@contextlib.contextmanager
def _ending_told(run: Run, grace: Grace) -> Iterator[None]:
    run.outbox.events.append(STATUS, {"status": "running", "message": ""})
    try:
        yield
    except (KeyboardInterrupt, TerminationSignal) as stop:
        if grace.reason == "terminated" and is_cancelled(flow_run.get_id()):
            grace.reason = "cancelled"
        message = _tell_stop(run, grace.reason)
        if isinstance(stop, TerminationSignal) and grace.reason != "terminated":
            raise RunCancelledError(message, STATES.get(grace.reason, "Cancelled")) from stop
        raise
    except BaseException as error:
        grace.begin()  # whatever is still called for what did arrive gets this much time
        run.scripts.finish(lambda: grace.left_s)
        _tell(run, "failed", str(error))
        raise
    _tell(run, "completed", "")


def _tell_stop(run: Run, reason: Reason) -> str:
    newest, account = run.newest_checkpoint(), run.outbox.account()
    places = list(_describe_places(run, newest))
    message = where_it_stands(newest, places)
    status = "cancelled" if reason in ("cancelled", "interrupted") else "preempted"
    path = str(newest.path) if newest else None
    standings = [run.outbox.ledger.summarize(destination.name) for destination in run.outbox.destinations]
    facts = {"status": status, "reason": reason, "checkpoint": path, "resume_from": path, "destinations": standings}
    if run.checked.will_publish:
        outcome = run.outcome(newest.step if newest else 0, None, None, 0)
        write_report(outcome, account, facts | {"message": message})
    run.outbox.events.append(STATUS, facts | {"message": message, "places": places})
    get_run_logger().warning(message)
    return message


def _describe_places(run: Run, newest: Checkpoint | None) -> Iterator[str]:
    ledger = run.outbox.ledger
    name = newest.path.name if newest else ""
    errors = {each.destination.name: each.error for each in run.outbox.account() if each.unit.name == name}
    for destination in run.outbox.destinations:
        standing = ledger.standing(destination.name)
        if newest and destination.wants("checkpoint") and not ledger.has_verified(destination.name, name):
            yield f"not published to {destination.name}: {errors.get(destination.name) or name}"
        yield str(standing) if standing else f"{destination.name} holds nothing of it"


def _tell(run: Run, status: str, message: str) -> None:
    newest = run.engine.newest_checkpoint
    path = str(newest.path) if newest else None
    run.outbox.events.append(STATUS, {"status": status, "message": message, "checkpoint": path})
