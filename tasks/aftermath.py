"""What is left of a run whose process ended without a word: its newest checkpoint, told once to everybody."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowtuner.engine.events import STATUS, EventLog, read_events
from flowtuner.engine.lock import wait_until_free
from flowtuner.errors import ConfigError
from flowtuner.options import LoadedConfig, load
from tasks.run import where_it_stands
from tasks.units import find_newest


def find_preemption(run_id: str, parameters: Mapping[str, Any]) -> str | None:
    """What a run said that was stopped by a signal from outside; None for one that ended in another way."""
    try:
        log = _load(parameters).config.output_dir / "logs" / "events.jsonl"
    except ConfigError:
        return None
    said = _last_status(log, run_id)
    return str(said["message"]) if said and said["status"] == "preempted" else None


def tell_what_is_left(run_id: str, parameters: Mapping[str, Any], status: str = "failed") -> str | None:
    """Says where a run's newest whole checkpoint is and ends its event log; None when the run has told it itself."""
    try:
        loaded = _load(parameters)
    except ConfigError as error:
        return f"nothing was started: {error}"
    output_dir = Path(loaded.config.output_dir)
    log = output_dir / "logs" / "events.jsonl"
    said = _last_status(log, run_id)
    if said and said["status"] != "running":
        return None
    wait_until_free(output_dir)  # an engine outlives its flow by the checkpoint that it saves then
    newest = find_newest(output_dir)
    message = where_it_stands(newest)
    if said:
        with contextlib.closing(EventLog(log, run_id)) as events:
            path = str(newest.path) if newest else None
            events.append(STATUS, {"status": status, "message": message, "checkpoint": path})
    return message


def _load(parameters: Mapping[str, Any]) -> LoadedConfig:
    config_file = parameters.get("config_file")
    return load(
        env=parameters.get("env"),
        config_file=Path(config_file) if config_file else None,
        values=parameters.get("config") or {},
    )


def _last_status(log: Path, run_id: str) -> dict[str, Any] | None:
    found = deque((event for event in read_events(log) if event.type == STATUS and event.run == run_id), maxlen=1)
    return found[0].data if found else None
