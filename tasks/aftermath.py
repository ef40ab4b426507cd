"""What is left of a run whose process ended without a word: its newest checkpoint, told once to everybody."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowtuner.engine.checkpoints import find_faults, list_checkpoints
from flowtuner.engine.events import STATUS, EventLog, read_events
from flowtuner.engine.run import Checkpoint
from flowtuner.errors import ConfigError
from flowtuner.options import load
from tasks.run import where_it_stands
from tasks.units import step_of


def tell_what_is_left(run_id: str, parameters: Mapping[str, Any], status: str = "failed") -> str | None:
    """Says where a run's newest whole checkpoint is and ends its event log; None when the run has told it itself."""
    config_file = parameters.get("config_file")
    try:
        loaded = load(
            env=parameters.get("env"),
            config_file=Path(config_file) if config_file else None,
            values=parameters.get("config") or {},
        )
    except ConfigError as error:
        return f"nothing was started: {error}"
    output_dir = Path(loaded.config.output_dir)
    whole = (folder for folder in reversed(list_checkpoints(output_dir)) if not find_faults(folder, hashes=False))
    newest = next((Checkpoint(folder, step_of(folder)) for folder in whole), None)
    message = where_it_stands(output_dir, newest)
    log = output_dir / "logs" / "events.jsonl"
    said = deque((event for event in read_events(log) if event.type == STATUS and event.run == run_id), maxlen=1)
    if said and said[0].data["status"] != "running":
        return None
    if said:
        with contextlib.closing(EventLog(log, run_id)) as events:
            path = str(newest.path) if newest else None
            events.append(STATUS, {"status": status, "message": message, "checkpoint": path})
    return message
