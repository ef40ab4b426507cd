"""Publishing one checkpoint or release to one destination."""

from __future__ import annotations

import threading
from typing import Any

from prefect.logging import get_run_logger

from flowtuner.engine.events import PUBLISH, EventLog
from flowtuner.errors import FlowtunerError, PublishError
from flowtuner.publishing.destination import Destination, PublishResult
from flowtuner.publishing.snapshot import Frozen, Snapshot
from tasks.retries import publish_task


class PublishStoppedError(PublishError):
    """The run was stopped while an upload was under way."""


class SupersededError(PublishError):
    """A checkpoint that newer ones have overtaken before its turn came."""


@publish_task("hash {frozen.unit.name}")
def seal(frozen: Frozen, events: EventLog, stop: threading.Event) -> Snapshot:
    """Hashes a frozen checkpoint into its manifest."""
    try:
        return frozen.seal(lambda: _check(stop, frozen.unit.name))
    except PublishError as error:
        events.notify("error", str(error))
        raise


@publish_task("publish {snapshot.name} to {destination.name}")
def publish(
    destination: Destination, snapshot: Snapshot, events: EventLog, stop: threading.Event, keep: int = 0
) -> PublishResult:
    """Brings a sealed checkpoint or release to a destination, and lets its oldest checkpoints there go."""
    about: dict[str, Any] = {
        "destination": destination.name,
        "provider": destination.provider,
        "what": snapshot.name,
        "step": snapshot.manifest.step,
    }
    events.append(PUBLISH, about | {"state": "uploading", "verified": False})
    try:
        _refuse_superseded(snapshot, keep)
        result = destination.publish(snapshot, lambda done, total: _check(stop, snapshot.name), keep)
    except FlowtunerError as error:
        events.append(PUBLISH, about | {"state": "failed", "verified": False, "message": str(error)})
        raise
    for note in result.notes:
        events.notify("warning", note)
    facts = {"uri": result.uri, "files": result.files, "bytes": result.bytes, "verified": result.verified}
    events.append(PUBLISH, about | {"state": "verified"} | facts)
    get_run_logger().info("published %s to %s: %s", snapshot.name, destination.name, result.uri)
    return result


def _check(stop: threading.Event, name: str) -> None:
    if stop.is_set():
        raise PublishStoppedError(f"{name} is not published: the run was stopped before it was all there")


def _refuse_superseded(snapshot: Snapshot, keep: int) -> None:
    # A destination slower than training would otherwise fall behind for ever, and the disk fill up with what waits.
    if not keep or snapshot.manifest.kind != "checkpoint":
        return
    waiting = snapshot.folder.parent.glob("checkpoint-*")
    newer = [folder for folder in waiting if int(folder.name.rpartition("-")[2]) > snapshot.manifest.step]
    if len(newer) >= keep:
        raise SupersededError(f"{snapshot.name} is left out: {len(newer)} newer checkpoints were waiting behind it")
