"""What travels between the flow and the engine: the run's specification down, reports across."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from flowtuner import durable
from flowtuner.options import LoadedConfig

# What opens a data set's storage travels in the engine's environment instead of the file.
DATA_KEYS = ("aws_access_key_id", "aws_secret_access_key")
DATA_KEYS_VARIABLE = "FLOWTUNER_DATA_KEYS"
# What may hold credentials: the engine neither publishes nor calls anybody, so it is not written down for it.
KEPT_FROM_ENGINE = (
    "publishing_config",
    "hub_token",
    "webhook_config",
    "post_upload_script",
    "post_checkpoint_script",
    "validation_external_script",
)


@dataclass(frozen=True)
class RunSpec:
    """Everything the engine needs to know, written to a file it reads at its start."""

    run_id: str
    loaded: LoadedConfig
    output_dir: Path

    @property
    def event_log(self) -> Path:
        """Where the run's numbered events are kept."""
        return self.output_dir / "logs" / "events.jsonl"

    @property
    def engine_log(self) -> Path:
        """Where the engine's own output goes."""
        return self.output_dir / "logs" / "engine.log"

    def save(self, path: Path) -> None:
        """Writes the specification for the engine to read."""
        loaded = self.loaded.to_json()
        for name in KEPT_FROM_ENGINE:
            loaded["config"][name] = None
        for entry in loaded["datasets"]:
            for name in DATA_KEYS:
                entry.pop(name, None)
        value = {"run_id": self.run_id, "output_dir": str(self.output_dir), "loaded": loaded}
        durable.write_json(path, value)

    def environment(self) -> dict[str, str]:
        """What the engine has to know and the file must not hold, as environment variables."""
        keys = {
            entry.id: given
            for entry in self.loaded.datasets
            if (given := {name: getattr(entry, name) for name in DATA_KEYS if getattr(entry, name)})
        }
        return {DATA_KEYS_VARIABLE: json.dumps(keys)} if keys else {}

    @classmethod
    def load(cls, path: Path, environ: Mapping[str, str] = MappingProxyType({})) -> Self:
        """Reads a specification back."""
        value = durable.read_json(path)
        keys = json.loads(environ.get(DATA_KEYS_VARIABLE, "{}"))
        for entry in value["loaded"]["datasets"]:
            entry.update(keys.get(entry["id"], {}))
        return cls(value["run_id"], LoadedConfig.from_json(value["loaded"]), Path(value["output_dir"]))


@dataclass(frozen=True)
class Portion:
    """One of several equal parts of a caching job, for a process of its own; together they are the whole."""

    number: int = 0
    count: int = 1

    def takes(self, batch: int) -> bool:
        """Whether the batch with this number is its own."""
        return batch % self.count == self.number


@dataclass(frozen=True)
class CacheReport:
    """What one caching stage found and did."""

    total: int
    hits: int
    encoded: int
    seconds: float
    quarantined: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Position:
    """Where training stands and how far it goes."""

    step: int
    total_steps: int
    steps_per_epoch: float


@dataclass(frozen=True)
class TrainReport:
    """What one leg reached; `stopped` and `paused` say that it ended early because somebody asked."""

    step: int
    loss: float
    stopped: bool
    paused: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """A complete folder on disk: a checkpoint, or the release at the end of a run."""

    path: Path
    step: int
    is_final: bool = False


@dataclass(frozen=True)
class ValidationReport:
    """The pictures and films of one validation, or why there are none."""

    step: int
    images: tuple[Path, ...] = ()
    videos: tuple[Path, ...] = ()
    """Films, as animated GIFs."""

    sheet: Path | None = None
    prompts: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Command:
    """One order to the engine."""

    id: int
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
