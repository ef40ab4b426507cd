"""`push_to_hub` and its relatives as one more destination, beside those of `publishing_config`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from flowtuner import durable
from flowtuner.engine.events import PUBLISH, read_events
from flowtuner.errors import ConfigError
from flowtuner.options import TrainingConfig
from flowtuner.publishing.checklist import Check

PROVIDER = "huggingface"
NAMES = (PROVIDER, "hub", "hf", "huggingface_hub")


class HubDestination(Protocol):
    """What the Hub can be asked besides what every destination can."""

    def inspect(self, output_dir: Path | None = None) -> list[Check]:
        """Looks at token, name, namespace, repository and rights."""

    def where(self) -> dict[str, Any]:
        """What can be seen of the repository."""

    def create(self) -> str:
        """Makes the repository; answers with its address."""


def publishing_entries(config: TrainingConfig) -> list[dict[str, Any]]:
    """Every place where a run's results go: the entries of `publishing_config`, and the Hub if it is pushed to."""
    return [*config.publishing_config, *([hub_entry(config)] if pushes(config) else [])]


def hub_entries(config: TrainingConfig) -> list[dict[str, Any]]:
    """Those of a run's destinations that are on the Hub."""
    return [entry for entry in publishing_entries(config) if is_hub(entry)]


def open_hub(entry: Mapping[str, Any]) -> HubDestination:
    """The Hub destination of an entry; raises ConfigError when the entry is wrong."""
    from flowtuner.publishing.registry import check_entries, known_destinations  # brings Prefect

    if faults := check_entries([entry], PROVIDER):
        raise ConfigError(faults)
    return cast(HubDestination, known_destinations()[PROVIDER].from_entry(entry, PROVIDER))


def remembered_hub(output_dir: Path) -> list[dict[str, Any]]:
    """Those of the destinations of a finished run that are on the Hub."""
    place = output_dir / "logs" / "destinations.json"
    return [entry for entry in durable.read_json(place)["entries"] if is_hub(entry)] if place.is_file() else []


def uploads_under_way(output_dir: Path) -> list[str]:
    """The units whose upload has begun and not ended, by a run's own log."""
    states = {
        str(event.data.get("what")): event.data.get("state")
        for event in read_events(output_dir / "logs" / "events.jsonl")
        if event.type == PUBLISH and event.data.get("provider") == PROVIDER
    }
    return [name for name, state in states.items() if state == "uploading"]


def is_hub(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of `publishing_config` is of the Hub."""
    return str(entry.get("provider") or entry.get("type") or "").strip().lower() in NAMES


def pushes(config: TrainingConfig) -> bool:
    """Whether a run was asked to save its results on the Hub."""
    return config.push_to_hub or config.push_checkpoints_to_hub


def hub_entry(config: TrainingConfig) -> dict[str, Any]:
    """The entry that the options of the Hub amount to."""
    given = {
        "token": None if config.hub_block else config.hub_token,
        "block": config.hub_block,
        "revision": config.hub_revision,
        # A new repository is private by default; one that is there stays as it is, unless somebody said.
        "private": config.model_card_private if "model_card_private" in config.model_fields_set else None,
        "allow_existing": config.hub_allow_existing or None,
    }
    entry = {"provider": PROVIDER, **_repository(config), "hub_strategy": _strategy(config)}
    return entry | {key: value for key, value in given.items() if value is not None}


def _repository(config: TrainingConfig) -> dict[str, str]:
    if config.hub_model_id:
        name = config.hub_model_id
        owner = config.push_to_hub_organization
        return {"repo_id": f"{owner}/{name}" if owner and "/" not in name else name}
    # SimpleTuner's default is the project's name, whose own default all projects share.
    named = "tracker_project_name" in config.model_fields_set
    name = config.tracker_project_name if named else Path(config.output_dir).name
    owner = config.push_to_hub_organization
    return {"repo_id": f"{owner}/{name}"} if owner else {"own_repo": name}


def _strategy(config: TrainingConfig) -> str:
    if config.hub_strategy:
        return config.hub_strategy
    return "all_checkpoints" if config.push_checkpoints_to_hub else "end"
