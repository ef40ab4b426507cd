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


@publish_task
def seal(frozen: Frozen) -> Snapshot:
    """Hashes a frozen checkpoint into its manifest."""
    return frozen.seal()


@publish_task
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

    def on_progress(done: int, total: int) -> None:
        if stop.is_set():
            raise PublishStoppedError(f"{snapshot.name} to {destination.name}: the run was stopped during the upload")

    events.append(PUBLISH, about | {"state": "uploading", "verified": False})
    try:
        result = destination.publish(snapshot, on_progress)
        if snapshot.manifest.kind == "checkpoint":
            destination.prune(snapshot.manifest.run, keep, snapshot.name)
    except FlowtunerError as error:
        events.append(PUBLISH, about | {"state": "failed", "verified": False, "message": str(error)})
        raise
    facts = {"uri": result.uri, "files": result.files, "bytes": result.bytes, "verified": result.verified}
    events.append(PUBLISH, about | {"state": "verified"} | facts)
    get_run_logger().info("published %s to %s: %s", snapshot.name, destination.name, result.uri)
    return result
