"""What must be known about the destinations before the first step: that they can be written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flowtuner.errors import DestinationDown, Fault, PublishError
from flowtuner.publishing.destination import Destination


def probe_destinations(destinations: Sequence[Destination], output_dir: Path) -> list[Fault]:
    """Writes, reads and deletes a small file at each destination; answers with one fault per refusal."""
    faults = []
    for destination in destinations:
        try:
            destination.probe(output_dir)
        except (PublishError, DestinationDown) as error:
            faults.append(Fault(f"publishing to {destination.name}", None, "", str(error)))
    return faults
