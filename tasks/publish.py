"""Publishing one checkpoint or release to one destination."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from prefect.logging import get_run_logger

from flowtuner.background import in_background
from flowtuner.engine.events import PUBLISH, EventLog
from flowtuner.errors import FlowtunerError, PublishError, Transient
from flowtuner.publishing.destination import Destination, PublishResult
from flowtuner.publishing.snapshot import Frozen, Snapshot
from tasks.ledger import Ledger
from tasks.retries import Patience, count_retries, pause_before_retry, upload_task

POLL_S = 0.2  # how soon a run that is stopped lets go of its uploads
TOLD_EVERY_S = 5.0
WAITING = MappingProxyType({"newest": 1, "all": 0})
"""How many newer checkpoints may wait behind one before it is left out, where it is not those that are kept."""

T = TypeVar("T")


class PublishStoppedError(PublishError):
    """The run was stopped while an upload was under way."""


class SupersededError(PublishError):
    """A checkpoint that newer ones have overtaken before its turn came."""


@upload_task("hash {frozen.unit.name}")
def seal(frozen: Frozen, events: EventLog, stop: threading.Event) -> Snapshot:
    """Hashes a frozen checkpoint into its manifest."""
    check = partial(_check, stop, frozen.unit.name)
    pause_before_retry(stop)
    try:
        return _unless_stopped(lambda: frozen.seal(check), check)
    except PublishError as error:
        events.notify("error", str(error))
        raise


@upload_task("publish {snapshot.name} to {destination.name}")
def publish(
    destination: Destination,
    snapshot: Snapshot,
    events: EventLog,
    stop: threading.Event,
    keep: int = 0,
    ledger: Ledger | None = None,
    patience: Patience | None = None,
) -> PublishResult:
    """Brings a sealed checkpoint or release to a destination, and lets its oldest checkpoints there go."""
    patience = patience or Patience(0)
    upload = _Upload(destination, snapshot, events, stop, ledger or Ledger(), patience)
    upload.tell_beginning()
    try:
        _check(stop, snapshot.name)
        pause_before_retry(stop)
        _refuse_superseded(snapshot, WAITING.get(destination.queue, keep))
        result = _unless_stopped(lambda: upload.run(keep), upload.tell_progress)
    except FlowtunerError as error:
        is_tried_again = isinstance(error, Transient) and not patience.is_over
        upload.tell_failure(error, "uploading" if is_tried_again else "failed")
        if isinstance(error, Transient) and not is_tried_again:
            minutes = patience.seconds / 60
            raise PublishError(f"given up after {minutes:g} minutes without a byte getting through: {error}") from error
        raise
    upload.tell_success(result)
    return result


class _Upload:
    """One attempt: what it does in a thread of its own, and what is told of it meanwhile."""

    def __init__(
        self,
        destination: Destination,
        snapshot: Snapshot,
        events: EventLog,
        stop: threading.Event,
        ledger: Ledger,
        patience: Patience,
    ) -> None:
        self._destination = destination
        self._snapshot = snapshot
        self._events = events
        self._stop = stop
        self._ledger = ledger
        self._patience = patience
        self._retries = count_retries()
        if not self._retries:
            patience.begin()
        self._done, self._total = 0, 0
        self._told_done, self._told_at = 0, time.monotonic()

    def run(self, keep: int) -> PublishResult:
        return self._destination.publish(self._snapshot, self._take_note, keep)

    def tell_beginning(self) -> None:
        manifest = self._snapshot.manifest
        again = f", attempt {self._retries + 1}" if self._retries else ""
        size = f"{len(manifest.files)} files, {manifest.size / 1e6:,.1f} MB"
        get_run_logger().info("pushing %s to %s: %s%s", self._snapshot.name, self._destination.name, size, again)
        self._append("uploading")

    def tell_progress(self) -> None:
        """Says now and then how far it is; ends it when the run is stopped."""
        _check(self._stop, self._snapshot.name)
        if self._done == self._told_done or time.monotonic() - self._told_at < TOLD_EVERY_S:
            return
        self._told_done, self._told_at = self._done, time.monotonic()
        percent = 100 * self._done / max(1, self._total)
        get_run_logger().info("upload of %s to %s: %.0f %%", self._snapshot.name, self._destination.name, percent)
        self._append("uploading", done_bytes=self._done, total_bytes=self._total)

    def tell_failure(self, error: FlowtunerError, state: str) -> None:
        self._append(state, message=str(error))

    def tell_success(self, result: PublishResult) -> None:
        for note in result.notes:
            self._events.notify("warning", note)
        self._ledger.note_verified(result)
        facts = {"uri": result.uri, "files": result.files, "bytes": result.bytes, "sent_bytes": result.sent_bytes}
        self._append("verified", **facts, verified=result.verified)
        get_run_logger().info("pushed %s to %s: %s", result.name, result.destination, result.uri)

    def _take_note(self, done: int, total: int) -> None:
        _check(self._stop, self._snapshot.name)
        self._done, self._total = done, total
        self._patience.note(done)

    def _append(self, state: str, **facts: Any) -> None:
        manifest = self._snapshot.manifest
        about = {
            "destination": self._destination.name,
            "provider": self._destination.provider,
            "what": self._snapshot.name,
            "step": manifest.step,
            "state": state,
            "verified": False,
            "files": len(manifest.files),
            "bytes": manifest.size,
            "retries": self._retries,
        }
        self._events.append(PUBLISH, about | self._ledger.lag(self._destination.name) | facts)


def _unless_stopped(call: Callable[[], T], look: Callable[[], None]) -> T:
    # A request that hangs cannot be interrupted: it is left alone in its thread, which nobody waits for.
    running = in_background(call, "upload")
    while not wait([running], POLL_S).done:
        look()
    return running.result()


def _check(stop: threading.Event, name: str) -> None:
    if stop.is_set():
        raise PublishStoppedError(f"{name} is not published: the run was stopped before it was all there")


def _refuse_superseded(snapshot: Snapshot, limit: int) -> None:
    # A destination slower than training would otherwise fall behind for ever, and the disk fill up with what waits.
    if not limit or snapshot.manifest.kind != "checkpoint":
        return
    waiting = snapshot.folder.parent.glob("checkpoint-*")
    newer = [folder for folder in waiting if int(folder.name.rpartition("-")[2]) > snapshot.manifest.step]
    if len(newer) >= limit:
        raise SupersededError(f"{snapshot.name} is left out: {len(newer)} newer checkpoints were waiting behind it")
