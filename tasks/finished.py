"""What a finished output folder, a single checkpoint or another program's model holds, for publishing it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from flowtuner.engine.checkpoints import MANIFEST, NAME, find_faults, list_checkpoints
from flowtuner.engine.run import Checkpoint, RunSpec
from flowtuner.errors import ConfigError, Fault, PublishError
from flowtuner.options import TrainingConfig
from flowtuner.publishing.destination import Destination
from flowtuner.publishing.memory import find_entries, recall_entries
from flowtuner.publishing.preflight import probe_destinations
from flowtuner.publishing.recognition import recognise
from flowtuner.publishing.registry import open_destinations, open_wanted
from flowtuner.publishing.scripts import check_script
from flowtuner.publishing.snapshot import Unit, model_unit
from tasks.credentials import find_credentials
from tasks.units import Origin, step_of, unit_of, units_on_disk

SCRIPT = "post_upload_script"


@dataclass(frozen=True)
class Finished:
    """What is to be published from where to whom."""

    output_dir: Path
    units: tuple[Unit, ...]
    destinations: tuple[Destination, ...]
    keep: int = 0
    config: TrainingConfig | None = None
    """The options of the run that made it, with the script for this time; None if another program made it."""

    @property
    def step(self) -> int:
        """The newest step among the units."""
        return max(unit.step for unit in self.units)


@task(task_run_name="check what is to be published", cache_policy=NO_CACHE)
def check_finished(
    path: str, wanted: Sequence[dict[str, Any] | str] | None, *, everything: bool = False, script: str | None = None
) -> Finished:
    """Looks at what is to be published and at its destinations, by default those of the run that made it."""
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        give = "Give a run's output folder, or one checkpoint in it."
        raise ConfigError([Fault("path", path, "", "is no folder", suggestion=give)])
    is_checkpoint = NAME.fullmatch(folder.name) is not None
    output_dir = folder.parent if is_checkpoint else folder
    spec = _read_spec(output_dir)
    config = spec.loaded.config.model_copy(update={SCRIPT: script}) if spec else None
    if faults := [*find_credentials(wanted, "destinations"), *_find_script_faults(script, config)]:
        raise ConfigError(faults)
    destinations = _open(wanted, output_dir)
    units = _find_units(folder, spec, everything=everything)
    if not units:
        raise PublishError(f"{folder} holds nothing to publish. Give a checkpoint folder or a finished output folder.")
    if refused := probe_destinations(destinations, output_dir).faults:
        raise ConfigError(refused)
    # Publishing one checkpoint by hand must not push others out.
    keep = config.checkpoints_total_limit if config and not is_checkpoint else 0
    return Finished(output_dir, tuple(units), tuple(destinations), keep, config)


def _find_script_faults(script: str | None, config: TrainingConfig | None) -> list[Fault]:
    if not script:
        return []
    if config is None:
        problem = "is filled in with the options of a run, and another program made this folder"
        return [Fault(SCRIPT, script, "", problem, suggestion="Call the command after `flowtuner publish`.")]
    return check_script(SCRIPT, script, config)


def _open(wanted: Sequence[dict[str, Any] | str] | None, output_dir: Path) -> list[Destination]:
    if wanted is None:
        return open_destinations(recall_entries(output_dir), "destinations")
    return open_wanted(wanted, find_entries(output_dir))


def _find_units(folder: Path, spec: RunSpec | None, *, everything: bool) -> list[Unit]:
    origin = Origin.of(spec) if spec else Origin()
    if NAME.fullmatch(folder.name):
        return [_checkpoint(origin, folder) if _is_ours(folder) else model_unit(folder, everything=everything)]
    found = units_on_disk(origin, folder)
    if spec or not recognise(folder):
        return found
    strangers = [each for each in list_checkpoints(folder) if everything and not _is_ours(each)]
    own = [unit for unit in found if unit.kind == "checkpoint"]
    return [*(model_unit(each, everything=True) for each in strangers), *own, model_unit(folder)]


def _is_ours(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def _checkpoint(origin: Origin, folder: Path) -> Unit:
    if faults := find_faults(folder, hashes=False):
        raise PublishError(f"{folder} is not a whole checkpoint: {'; '.join(faults[:5])}")
    return unit_of(origin, Checkpoint(folder, step_of(folder)))


def _read_spec(output_dir: Path) -> RunSpec | None:
    path = output_dir / "logs" / "run.json"
    return RunSpec.load(path) if path.is_file() else None
