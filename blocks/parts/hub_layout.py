"""Where a run's checkpoints and release stand in a repository on the Hub, by the strategies that TRL has names for."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from flowtuner.durable import FileRecord
from flowtuner.publishing.manifest import Manifest

Strategy = Literal["end", "every_save", "checkpoint", "all_checkpoints"]

LAST = "last-checkpoint"
PIPELINE = "pipeline/"
TAKEN_FROM = "checkpoint"
# What only resuming needs: ours, accelerate's and that of transformers' Trainer.
RESUME_FILES = (
    "optimizer.*", "scheduler.bin", "scheduler.pt", "scaler.pt", "random_states_*", "rng_state*", "ema.bin",
    "training_state.json", "trainer_state.json", "training_args.bin", "checkpoint_manifest.json", "*.pkl",
)  # fmt: skip
FOLDER = re.compile(rf"checkpoint-\d+|{LAST}")
WEIGHTS = re.compile(r"\.(safetensors|bin|pt|pth|ckpt)(\.index\.json)?$")


@dataclass(frozen=True)
class Part:
    """A unit as it stands in the repository, and under which paths its files are found here."""

    manifest: Manifest
    sources: dict[str, str]
    folder: str = ""


def is_checkpoint(name: str) -> bool:
    """Whether a folder of a repository is called as those of checkpoints are."""
    return FOLDER.fullmatch(name) is not None


def part_of(manifest: Manifest, strategy: Strategy) -> Part | None:
    """A unit whole: the release at the top, a checkpoint in its folder; None where only its weights are kept."""
    if manifest.kind == "release":
        return _release(manifest)
    if strategy == "all_checkpoints":
        return Part(manifest, _identity(manifest))
    return Part(manifest, _identity(manifest), LAST) if strategy == "checkpoint" else None


def weights_of(checkpoint: Manifest, present: Manifest | None, sizes: Mapping[str, int]) -> Part:
    """The weights of a checkpoint as the release at the top, beside what an earlier release left there untouched."""
    weights = [record for record in checkpoint.files if not _only_resumes(record.path)]
    kept = list(_untouched(weights, present, sizes)) if present and present.run == checkpoint.run else []
    about = dict(checkpoint.metadata) | {TAKEN_FROM: checkpoint.name}
    files = tuple(sorted([*weights, *kept], key=lambda record: record.path))
    manifest = replace(checkpoint, name="release", kind="release", files=files, metadata=about)
    return Part(manifest, {record.path: record.path for record in weights})


def is_superseded(checkpoint: Manifest, present: Manifest | None) -> bool:
    """Whether a later state of the same run stands where this one would be written, or the release of this step."""
    if present is None or (present.run, present.run_id) != (checkpoint.run, checkpoint.run_id):
        return False
    is_final = present.kind == "release" and TAKEN_FROM not in present.metadata
    return present.step > checkpoint.step or (is_final and present.step == checkpoint.step)


def _release(manifest: Manifest) -> Part:
    # A pipeline's parts stand at the top of a repository: that is where `from_pretrained` looks for them.
    taken = {record.path for record in manifest.files}
    files, sources = [], {}
    for record in manifest.files:
        path = record.path.removeprefix(PIPELINE)
        path = record.path if path in taken else path
        files.append(replace(record, path=path))
        sources[path] = record.path
    return Part(replace(manifest, files=tuple(sorted(files, key=lambda record: record.path))), sources)


def _identity(manifest: Manifest) -> dict[str, str]:
    return {record.path: record.path for record in manifest.files}


def _only_resumes(path: str) -> bool:
    name = PurePosixPath(path).name
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in RESUME_FILES)


def _untouched(weights: list[FileRecord], present: Manifest, sizes: Mapping[str, int]) -> Iterator[FileRecord]:
    # Never beside new weights: two versions of a model in one folder would look like one.
    folders = {PurePosixPath(record.path).parts[0] for record in weights}
    paths = {record.path for record in weights}
    for record in present.files:
        if sizes.get(f"{present.run}/{record.path}") != record.size:
            continue
        is_top = len(PurePosixPath(record.path).parts) == 1
        if is_top and record.path not in paths and not WEIGHTS.search(record.path):
            yield record
        if not is_top and PurePosixPath(record.path).parts[0] not in folders:
            yield record
