"""What of a run's output folder is to be published, with what its manifest says about its origin."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from flowtuner.engine.checkpoints import find_faults, list_checkpoints, read_state
from flowtuner.engine.lineage import describe_training
from flowtuner.engine.run import KEPT_FROM_ENGINE, Checkpoint, RunSpec
from flowtuner.errors import CheckpointError
from flowtuner.publishing.selection import list_release_files
from flowtuner.publishing.snapshot import Unit, checkpoint_unit, folder_unit, release_unit


@dataclass(frozen=True)
class Origin:
    """Where published weights come from."""

    run_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: RunSpec) -> Self:
        """The origin that a run's specification names."""
        config = spec.loaded.config
        # Without what the run's own record leaves out, so that publishing again gives the same.
        values = json.dumps(config.model_dump(mode="json", exclude=set(KEPT_FROM_ENGINE)), sort_keys=True)
        return cls(
            spec.run_id,
            {
                "job_id": spec.run_id,
                "config_sha256": hashlib.sha256(values.encode()).hexdigest(),
                "model_family": config.model_family,
                "model_type": config.model_type,
                "training": describe_training(config),
            },
        )


def unit_of(origin: Origin, saved: Checkpoint) -> Unit:
    """A checkpoint, or the release, as something to publish."""
    if saved.is_final:
        about = {**origin.metadata, "validation_type": "final"}
        return release_unit(saved.path, origin.run_id, saved.step, about)
    about = {**origin.metadata, "validation_type": "intermediary"}
    with contextlib.suppress(CheckpointError):  # one that another program has made
        about["data_set"] = read_state(saved.path).data_set
    return checkpoint_unit(saved.path, origin.run_id, saved.step, about)


def folder_unit_of(origin: Origin, output_dir: Path, step: int) -> Unit:
    """A whole output folder as something to publish."""
    validation_type = "final" if list_release_files(output_dir) else "intermediary"
    return folder_unit(output_dir, origin.run_id, step, {**origin.metadata, "validation_type": validation_type})


def units_on_disk(origin: Origin, output_dir: Path) -> list[Unit]:
    """Every whole checkpoint of an output folder, and its release if it has one."""
    saved = [
        Checkpoint(folder, step_of(folder))
        for folder in list_checkpoints(output_dir)
        if not find_faults(folder, hashes=False)
    ]
    if list_release_files(output_dir):
        # A run saves its last step before it writes the release from it.
        saved.append(Checkpoint(output_dir, saved[-1].step if saved else 0, is_final=True))
    units = [unit_of(origin, each) for each in saved]
    return [*units, folder_unit_of(origin, output_dir, saved[-1].step)] if saved else units


def find_newest(output_dir: Path) -> Checkpoint | None:
    """The newest whole checkpoint of an output folder."""
    whole = (folder for folder in reversed(list_checkpoints(output_dir)) if not find_faults(folder, hashes=False))
    return next((Checkpoint(folder, step_of(folder)) for folder in whole), None)


def step_of(folder: Path) -> int:
    """The step in a checkpoint folder's name."""
    return int(folder.name.rpartition("-")[2])
