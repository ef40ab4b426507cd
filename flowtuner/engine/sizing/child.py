"""The process that measures: reads a run's specification, writes what it found as the last line of its output."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from flowtuner.engine.cache.places import index_root
from flowtuner.engine.crew import die_with
from flowtuner.engine.data.sampler import Sampler
from flowtuner.engine.data.scan import scan_datasets
from flowtuner.engine.estimate import Estimate, count_memory, find_device
from flowtuner.engine.families import choose_source, open_family
from flowtuner.engine.family import Family
from flowtuner.engine.plan import count_steps
from flowtuner.engine.precision import Precision, resolve_precision
from flowtuner.engine.remedies import describe_change, list_changes
from flowtuner.engine.run import RunSpec
from flowtuner.engine.sizing.files import count_disk, count_part
from flowtuner.engine.sizing.rehearsal import read_resident, rehearse
from flowtuner.engine.sizing.report import CAPTIONS, PICTURES, TRAINING, VALIDATING, Sizing
from flowtuner.engine.sizing.simulation import Peaks, simulate
from flowtuner.engine.sizing.work import Work
from flowtuner.engine.validation import validation_prompts

REHEARSE = "--rehearse"
MOST_REMEDIES = 3


def main(spec_path: str, *wishes: str) -> None:
    """Counts, and with `--rehearse` tries."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    loaded = RunSpec.load(Path(spec_path), os.environ).loaded
    kind, room = find_device()
    device = torch.device(kind)
    config = loaded.config
    family = open_family(config.model_family)(choose_source(config), config)
    scan = scan_datasets(loaded.datasets, config, index_dir=index_root(config), report=lambda done, total: None)
    work = Work.of(family, scan)
    sampler = Sampler.for_run(scan.samples, loaded.datasets, config, seed=0)
    steps = count_steps(config, sampler.micro_batches_in(config.num_train_epochs))
    process = _measure_process(family) if kind == "cpu" else 0
    precision = resolve_precision(config, device)
    peaks, found = _count(work, precision, device)
    phases = _add_up(family, process, found, peaks)
    sizing = Sizing(
        kind,
        room,
        process,
        vars(found) | {"what is computed with": peaks.step - peaks.gradients},
        phases,
        count_disk(work, found, peaks, peaks.width),
        steps,
    )
    say({}, sizing)
    if not sizing.fits:
        found_so_far: list[str] = []
        for remedy in itertools.islice(_find_remedies(work, device, room, process), MOST_REMEDIES):
            found_so_far.append(remedy)
            say({"remedies": found_so_far}, sizing)  # whoever loses patience has what there is
        return
    if REHEARSE in wishes:
        seen = rehearse(work, precision, device, peaks.latent)
        caching = seen.picture_seconds * work.pixels / work.largest_pixels
        say({"measured": asdict(seen) | {"caching_seconds": caching}}, sizing)


def say(more: Mapping[str, Any], sizing: Sizing) -> None:
    """One line for the process that waits."""
    sys.stdout.write(json.dumps(asdict(sizing) | dict(more)) + "\n")
    sys.stdout.flush()


def _count(work: Work, precision: Precision, device: torch.device) -> tuple[Peaks, Estimate]:
    peaks = simulate(work, precision, device)
    return peaks, count_memory(work.family.config, device.type, peaks.weights, peaks.trained)


def _add_up(family: Family, process: int, found: Estimate, peaks: Peaks) -> dict[str, int]:
    kept = found.total - found.gradients
    width = peaks.width
    vae = count_part(family, "vae", width)
    encoders = [name for name in getattr(family, "parts", {}) if name.startswith("text_encoder")]
    text = sum(count_part(family, name, width) for name in encoders)
    phases = {
        CAPTIONS: process + text,
        PICTURES: process + vae + peaks.encoding,
        # A process that has a share of the model has a share of its gradients.
        TRAINING: process + kept + peaks.step - peaks.gradients + found.gradients,
    }
    if validation_prompts(family.config):
        phases[VALIDATING] = process + kept + vae + peaks.drawing
    return phases


def _find_remedies(work: Work, device: torch.device, room: int, process: int) -> Iterator[str]:
    config = work.family.config
    enough: list[dict[str, object]] = []
    for change in list_changes(config):
        if any(less.items() <= change.items() for less in enough):
            continue
        changed = config.model_copy(update=change)
        family = open_family(changed.model_family)(choose_source(changed), changed)
        tried = replace(work, family=family, batch_size=changed.train_batch_size)
        peaks, found = _count(tried, resolve_precision(changed, device), device)
        phases = _add_up(family, process, found, peaks)
        if max(size for name, size in phases.items() if name != VALIDATING) <= room:
            enough.append(change)
            yield describe_change(change)


def _measure_process(family: Family) -> int:
    """What a process holds that has loaded the libraries and no model."""
    for part in getattr(family, "parts", {}).values():
        if part.loads:
            getattr(importlib.import_module(part.library), part.loads)
    return read_resident()


if __name__ == "__main__":
    die_with(int(sys.argv[1]), signal.SIGKILL)
    main(*sys.argv[2:])
