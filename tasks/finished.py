"""What a finished output folder or a single checkpoint holds, for publishing it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from flowtuner.engine.checkpoints import NAME, find_faults
from flowtuner.engine.run import Checkpoint, RunSpec
from flowtuner.errors import ConfigError, Fault, PublishError
from flowtuner.publishing.destination import Destination
from flowtuner.publishing.preflight import probe_destinations
from flowtuner.publishing.registry import open_destinations
from flowtuner.publishing.snapshot import Unit
from tasks.credentials import find_credentials
from tasks.memory import recall_entries
from tasks.units import Origin, step_of, unit_of, units_on_disk


@dataclass(frozen=True)
class Finished:
    """What is to be published from where to whom."""

    output_dir: Path
    units: tuple[Unit, ...]
    destinations: tuple[Destination, ...]
    keep: int = 0

    @property
    def step(self) -> int:
        """The newest step among the units."""
        return max(unit.step for unit in self.units)


@task(task_run_name="check what is to be published", cache_policy=NO_CACHE)
def check_finished(path: str, entries: Sequence[dict[str, Any]] | None) -> Finished:
    """Looks at what is to be published and at its destinations, by default those of the run that made it."""
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        give = "Give a run's output folder, or one checkpoint in it."
        raise ConfigError([Fault("path", path, "", "is no folder", suggestion=give)])
    is_checkpoint = NAME.fullmatch(folder.name) is not None
    output_dir = folder.parent if is_checkpoint else folder
    spec = _read_spec(output_dir)
    if faults := find_credentials(entries, "destinations"):
        raise ConfigError(faults)
    if entries is None:
        entries = recall_entries(output_dir)
    destinations = open_destinations(entries, "destinations")
    origin = Origin.of(spec) if spec else Origin()
    units = [_checkpoint(origin, folder)] if is_checkpoint else units_on_disk(origin, output_dir)
    if not units:
        raise PublishError(f"{folder} holds nothing to publish. Give a checkpoint folder or a finished output folder.")
    if refused := probe_destinations(destinations, output_dir).faults:
        raise ConfigError(refused)
    # Publishing one checkpoint by hand must not push others out.
    keep = spec.loaded.config.checkpoints_total_limit if spec and not is_checkpoint else 0
    return Finished(output_dir, tuple(units), tuple(destinations), keep)


def _checkpoint(origin: Origin, folder: Path) -> Unit:
    if faults := find_faults(folder, hashes=False):
        raise PublishError(f"{folder} is not a whole checkpoint: {'; '.join(faults[:5])}")
    return unit_of(origin, Checkpoint(folder, step_of(folder)))


def _read_spec(output_dir: Path) -> RunSpec | None:
    path = output_dir / "logs" / "run.json"
    return RunSpec.load(path) if path.is_file() else None
