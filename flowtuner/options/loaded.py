"""What loading gives: the checked options, the datasets, and where every value came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from flowtuner.options.config import TrainingConfig
from flowtuner.options.dataset import DatasetEntry
from flowtuner.options.fields import Section, extra_of
from flowtuner.options.origin import DEFAULT, Origin
from flowtuner.options.redaction import hide_secrets


@dataclass(frozen=True)
class LoadedConfig:
    """A whole configuration; crosses the border to the engine as JSON."""

    config: TrainingConfig
    datasets: tuple[DatasetEntry, ...] = ()
    origins: Mapping[str, Origin] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    config_file: Path | None = None

    def origin(self, option: str) -> Origin:
        """Where an option's value came from."""
        return self.origins.get(option, DEFAULT)

    def accepted_only(self) -> list[str]:
        """What was asked for and has no effect yet, as `option=value`."""
        found = accepted_only(self.config, self.origins)
        for entry in self.datasets:
            found += [f"{entry.id}: {name}" for name in _find_accepted(entry, entry.model_fields_set)]
        return found

    def redacted(self) -> dict[str, Any]:
        """The options and datasets without anything that may be secret, fit to be shown and kept."""
        shown: dict[str, Any] = hide_secrets(
            {
                "config": self.config.model_dump(mode="json"),
                "datasets": [entry.model_dump(mode="json", exclude_defaults=True) for entry in self.datasets],
            }
        )
        return shown

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {
            "config": self.config.model_dump(mode="json"),
            "datasets": [entry.model_dump(mode="json", exclude_unset=True) for entry in self.datasets],
            "origins": {name: [origin.kind, origin.where] for name, origin in self.origins.items()},
            "warnings": list(self.warnings),
            "config_file": str(self.config_file) if self.config_file else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Reads what `to_json` gave."""
        return cls(
            config=TrainingConfig.model_validate(value["config"]),
            datasets=tuple(DatasetEntry.model_validate(entry) for entry in value["datasets"]),
            origins={name: Origin(kind, where) for name, (kind, where) in value["origins"].items()},
            warnings=tuple(value["warnings"]),
            config_file=Path(value["config_file"]) if value.get("config_file") else None,
        )


def accepted_only(config: TrainingConfig, origins: Mapping[str, Origin]) -> list[str]:
    """The options that were set, differ from their defaults, and have no effect yet."""
    given = {name for name, origin in origins.items() if origin.kind != "default"}
    return _find_accepted(config, given)


def _find_accepted(record: Section, given: set[str]) -> list[str]:
    found = []
    for name, declared in type(record).model_fields.items():
        extra, value = extra_of(declared), getattr(record, name)
        default = None if declared.is_required() else declared.get_default(call_default_factory=True)
        if (
            name in given
            and extra.get("status") == "accepted"
            and not _is_built(value, (default, *extra.get("built", ())))
        ):
            found.append(f"{name}={value}" if isinstance(value, str | int | float) else name)
    return found


def _is_built(value: Any, built: tuple[Any, ...]) -> bool:
    parts = value.split(",") if isinstance(value, str) else [value]  # trackers may be several
    return value in built or all(part in built for part in parts)
