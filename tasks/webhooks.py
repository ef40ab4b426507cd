"""Webhooks: readers of the event log that tell it to other people's addresses while the run goes on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from prefect.runtime import flow_run

from flowtuner.engine.events import EventLog, last_seq
from flowtuner.options import TrainingConfig
from flowtuner.telling.courier import Courier
from flowtuner.telling.hooks import Hook

FOLDER = "webhooks"
JOB_TAG = "job:"
JOIN_S = 25.0


@contextlib.contextmanager
def announced(events: EventLog, config: TrainingConfig) -> Iterator[None]:
    """Tells every webhook of `webhook_config` what is appended to the log."""
    hooks = {hook.fingerprint: hook for hook in map(Hook.of, config.webhook_config)}
    couriers = [_courier(hook, events, config) for hook in hooks.values()]
    newest = last_seq(events.path)
    for courier in couriers:
        courier.open(newest)
    threads = [threading.Thread(target=each.run, name="webhook", daemon=True) for each in couriers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for courier in couriers:
            courier.stop.set()
        for thread in threads:
            thread.join(JOIN_S)


def _courier(hook: Hook, events: EventLog, config: TrainingConfig) -> Courier:
    return Courier(
        hook,
        events,
        events.path.parent / FOLDER,
        _find_job(events.run),
        config.tracker_project_name,
        float(config.webhook_reporting_interval or 0),
    )


def _find_job(run_id: str) -> str:
    tags = flow_run.get_tags() or []
    return next((tag.removeprefix(JOB_TAG) for tag in tags if tag.startswith(JOB_TAG)), run_id)
