"""Making a destination whole again: what has other bytes there is removed, so that publishing brings it anew."""

from __future__ import annotations

from collections.abc import Sequence

from prefect.logging import get_run_logger

from flowtuner.publishing.destination import Destination
from flowtuner.publishing.snapshot import Unit
from tasks.retries import publish_task


@publish_task("look for damage in {destination.name}")
def clear_damage(destination: Destination, units: Sequence[Unit]) -> list[str]:
    """Reads every byte that a destination holds of these units, and removes what is wrong."""
    wanted = {unit.name for unit in units}
    found = []
    for manifest in destination.units(units[0].run):
        if manifest.name in wanted:
            found += destination.clear_damage(manifest)
    for damage in found:
        get_run_logger().warning("%s: %s; it is brought again", destination.name, damage)
    return found
