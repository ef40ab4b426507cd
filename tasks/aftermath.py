"""What is left of a run whose process ended without a word: its newest checkpoint, told once to everybody."""

from __future__ import annotations

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


def tell_what_is_left(run_id: str, parameters: Mapping[str, Any]) -> str:
    """Says where a run's newest whole checkpoint is, and ends its event log if nobody has."""
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
    _end_log(output_dir / "logs" / "events.jsonl", run_id, message, newest)
    return message


def _end_log(path: Path, run_id: str, message: str, newest: Checkpoint | None) -> None:
    said = deque((event for event in read_events(path) if event.type == STATUS and event.run == run_id), maxlen=1)
    if not said or said[0].data["status"] != "running":
        return
    events = EventLog(path, run_id)
    events.append(STATUS, {"status": "failed", "message": message, "checkpoint": str(newest.path) if newest else None})
    events.close()
