"""What is wrong with the options about publishing, found without asking anybody: entries and commands."""

from __future__ import annotations

from collections.abc import Iterator

from flowtuner.errors import Fault
from flowtuner.options import TrainingConfig
from flowtuner.publishing.hub import publishing_entries
from flowtuner.publishing.scripts import SCRIPTS, check_script


def check_publishing(config: TrainingConfig) -> Iterator[Fault]:
    """Every mistake in the options about publishing, for the same list as the mistakes in all other options."""
    for option in SCRIPTS:
        if template := getattr(config, option):
            yield from check_script(option, template, config)
    if entries := publishing_entries(config):
        from flowtuner.publishing.registry import check_entries  # brings the destinations, and with them Prefect

        yield from check_entries(entries)
