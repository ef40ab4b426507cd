"""The uploads of a run: frozen at once, sent in the background while training goes on, none of them forgotten."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, cast
from uuid import uuid4

from prefect.futures import PrefectFuture
from prefect.runtime import flow_run

from flowtuner.engine.events import EventLog
from flowtuner.errors import FlowtunerError, PublishError
from flowtuner.publishing.destination import Destination, PublishResult
from flowtuner.publishing.manifest import Manifest
from flowtuner.publishing.snapshot import Frozen, Snapshot, Unit, claimed_spool, freeze, remove_spool, thaw
from tasks.grace import Grace
from tasks.ledger import Ledger
from tasks.page.live import shown_live
from tasks.publish import publish, seal
from tasks.retries import PATIENCE_S, Patience

POLL_S = 0.1
RELEASE = "release"


@dataclass(frozen=True)
class Delivery:
    """What one destination holds of one unit, or why it does not."""

    destination: Destination
    unit: Unit
    manifest: Manifest | None = None
    result: PublishResult | None = None
    error: str | None = None

    @property
    def is_verified(self) -> bool:
        """Whether the destination was seen to hold the unit, whole."""
        return self.result is not None and self.result.verified and self.error is None


_Upload = tuple[Destination, PrefectFuture[PublishResult]]


class _Shipment:
    """One frozen unit on its way to all destinations; its links go when the last upload has ended."""

    def __init__(
        self,
        frozen: Frozen,
        sealed: PrefectFuture[Snapshot],
        uploads: Sequence[_Upload],
        stop: threading.Event | None = None,
    ) -> None:
        self.frozen = frozen
        self.stop = stop or threading.Event()
        self.ended = threading.Event()
        self._sealed = sealed
        self._uploads = uploads
        self._lock = threading.Lock()
        self._open = len(uploads)
        self._is_thawed = False
        for _, future in uploads:
            future.add_done_callback(self._count_down)

    def _count_down(self, future: PrefectFuture[PublishResult]) -> None:
        # Asking each future for its state instead would be a request to the server, made while training waits.
        with self._lock:
            self._open -= 1
            is_last = self._open == 0
        if is_last:
            self.thaw()
            self.ended.set()

    def thaw(self) -> None:
        """Gives the links back, once: a late callback must not take what was frozen again."""
        with self._lock:
            if not self._is_thawed:
                thaw(self.frozen)
            self._is_thawed = True

    def deliveries(self) -> Iterator[Delivery]:
        snapshot = self._sealed.result(raise_on_failure=False)
        for destination, future in self._uploads:
            if not isinstance(snapshot, Snapshot):  # then the uploads never began, and have no result to ask for
                yield Delivery(destination, self.frozen.unit, error=str(snapshot))
                continue
            answer = future.result(raise_on_failure=False)
            if isinstance(answer, PublishResult):
                yield Delivery(destination, self.frozen.unit, snapshot.manifest, answer)
            else:
                yield Delivery(destination, self.frozen.unit, error=str(answer))


@dataclass
class Outbox:
    """The uploads of a run: `send` returns at once, `collect` waits for them and forgets nothing."""

    destinations: Sequence[Destination]
    events: EventLog
    keep: int
    ledger: Ledger = field(default_factory=Ledger)
    _shipments: list[_Shipment] = field(default_factory=list)
    _lost: list[Delivery] = field(default_factory=list)
    _stops: list[threading.Event] = field(default_factory=list)
    _history: dict[tuple[str, str], Delivery] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A run that failed still finishes its uploads: its newest checkpoint is what can be saved of it. One that is
        # stopped has done so in `finish`, and must leave.
        try:
            if error is None or isinstance(error, FlowtunerError):
                self.collect()
        finally:
            self._give_up()
            self.collect()

    def send(self, unit: Unit, patience_s: float = PATIENCE_S) -> None:
        """Freezes a unit and has it uploaded to every destination that keeps such units."""
        destinations = self.wanting(unit)
        if not destinations:
            return
        try:
            frozen = freeze(unit)
        except PublishError as error:
            self.events.notify("error", str(error))
            self._lost += [Delivery(destination, unit, error=str(error)) for destination in destinations]
            return
        self.ledger.note_saved(unit.step)
        stop = threading.Event()
        self._stops.append(stop)  # before anything is submitted: a signal may arrive in between
        sealed = seal.submit(frozen, self.events, stop)
        snapshot = cast(Snapshot, sealed)  # Prefect waits for it and hands its result to the task
        uploads = [
            (destination, publish.submit(destination, snapshot, self.events, stop, self.keep, self.ledger, patience))
            for destination, patience in ((each, Patience(patience_s)) for each in destinations)
        ]
        self._shipments.append(_Shipment(frozen, sealed, uploads, stop))

    def collect(self) -> list[Delivery]:
        """Waits for every upload and answers with what became of each."""
        deliveries, self._lost = self._lost, []
        for shipment in self._shipments:
            deliveries += shipment.deliveries()
            shipment.thaw()
            remove_spool(shipment.frozen.unit)
        self._shipments.clear()
        self._history |= {(each.unit.name, each.destination.name): each for each in deliveries}
        return deliveries

    def finish(self, newest: Unit | None, grace: Grace) -> None:
        """Has the newest checkpoint of a stopped run published, and the release if it is written, while there is time.

        Whatever else waits or hangs is given up.
        """
        wanted = {newest.name if newest else "", RELEASE}
        for shipment in self._shipments:
            if shipment.frozen.unit.name not in wanted:
                shipment.stop.set()
        if newest and not self._is_on_its_way(newest):
            self.send(newest)
        for shipment in self._shipments:
            while not shipment.ended.wait(POLL_S) and grace.left_s > 0:
                continue  # short waits let signals reach the main thread
        self._give_up()
        self.collect()

    def wanting(self, unit: Unit) -> list[Destination]:
        """The destinations that keep units of this kind."""
        return [destination for destination in self.destinations if destination.wants(unit.kind)]

    def account(self) -> list[Delivery]:
        """What became of everything that was sent."""
        return list(self._history.values())

    def settle(self, units: Sequence[Unit], patience_s: float = PATIENCE_S) -> list[Delivery]:
        """Sees to it that every unit that is still on disk was sent, once more if the first time was in vain."""
        if self.destinations:
            self.events.stage("publish", "running", "waiting for the last uploads")
        first = self.collect()
        arrived = {(each.unit.name, each.destination.name) for each in first if each.is_verified}
        due = _newest(units, self.keep)
        wanted = {unit.name for unit in due}
        for unit in due:
            # A whole output folder is never what it was when it was sent last.
            is_due = unit.kind == "folder"
            if is_due or any((unit.name, destination.name) not in arrived for destination in self.wanting(unit)):
                self.send(unit, patience_s)
        second = self.collect()
        if self.destinations:
            self.events.stage("publish", "completed", "all uploads have ended")
        repeated = {(each.unit.name, each.destination.name) for each in second}
        # What was rotated away meanwhile is nobody's loss: newer checkpoints stand in for it.
        kept = [each for each in first if each.unit.name in wanted]
        return [each for each in kept if (each.unit.name, each.destination.name) not in repeated] + second

    def is_being_sent(self, name: str) -> bool:
        """Whether a unit of this name has not arrived everywhere yet."""
        return any(shipment.frozen.unit.name == name and not shipment.ended.is_set() for shipment in self._shipments)

    def _is_on_its_way(self, unit: Unit) -> bool:
        if self.is_being_sent(unit.name):
            return True
        return all(self.ledger.has_verified(destination.name, unit.name) for destination in self.wanting(unit))

    def _give_up(self) -> None:
        for stop in self._stops:
            stop.set()


def _newest(units: Sequence[Unit], keep: int) -> list[Unit]:
    """Without the checkpoints beyond those that are kept: they stayed here while their uploads waited."""
    steps = sorted(unit.step for unit in units if unit.kind == "checkpoint")
    oldest = steps[-keep] if 0 < keep < len(steps) else 0
    return [unit for unit in units if unit.kind != "checkpoint" or unit.step >= oldest]


@contextlib.contextmanager
def open_outbox(destinations: Sequence[Destination], output_dir: Path, keep: int) -> Iterator[Outbox]:
    """An outbox without a run around it, for publishing what a run has left."""
    log = output_dir / "logs" / "events.jsonl"
    events = EventLog(log, str(flow_run.get_id() or uuid4()))
    with (
        contextlib.closing(events),
        shown_live(events),
        claimed_spool(output_dir),
        Outbox(destinations, events, keep, Ledger(log)) as outbox,
    ):
        yield outbox
