"""Where a run publishes to, kept beside its log so that publishing again needs no more than the folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowtuner import durable
from flowtuner.errors import ConfigError, Fault
from flowtuner.options import hide_secrets

PLACE = "logs/destinations.json"


def remember_entries(output_dir: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Keeps the entries of `publishing_config`, except those with credentials in them."""
    kept = [entry for entry in entries if hide_secrets(entry) == entry]
    durable.write_json(output_dir / PLACE, {"entries": kept, "left_out": len(entries) - len(kept)})


def find_entries(output_dir: Path) -> list[dict[str, Any]]:
    """What of a run's entries is known, if anything."""
    place = output_dir / PLACE
    return list(durable.read_json(place)["entries"]) if place.is_file() else []


def recall_entries(output_dir: Path) -> list[dict[str, Any]]:
    """The entries of the run that made an output folder; raises ConfigError when they cannot be known."""
    place = output_dir / PLACE
    known: dict[str, Any] = {"entries": [], "left_out": 0}
    if place.is_file():
        known = durable.read_json(place)
    if known["left_out"]:
        problem = "the run's destinations had credentials in them, which are not kept"
    elif not known["entries"]:
        problem = f"the run that made {output_dir} published nowhere"
    else:
        return list(known["entries"])
    hint = "name the destinations: --to FOLDER, or --config FILE with a publishing_config"
    raise ConfigError([Fault("destinations", None, "", problem, suggestion=hint)])
