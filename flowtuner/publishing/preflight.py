"""What must be known about destinations before the first step: that they can be written and outlive the machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flowtuner.background import in_background
from flowtuner.errors import WOULD_LOSE_RESULTS, ConfigError, DestinationDown, Fault, PublishError
from flowtuner.options import LoadedConfig
from flowtuner.publishing.destination import Destination
from flowtuner.publishing.ephemeral import PACE_S, PACE_SHARE, Ephemerality, judge, lies_apart
from flowtuner.publishing.hub import publishing_entries
from flowtuner.publishing.resume import ResumePoint, look_for_resume

# A safety net: every client has timeouts of its own, and on a busy machine loading their libraries takes a while.
PROBE_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Inspection:
    """What is known about a run's destinations and its machine before anything is loaded."""

    destinations: tuple[Destination, ...] = ()
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    is_ephemeral: bool = False
    """Whether the machine is thrown away after the run."""
    is_paced: bool = False
    """Whether nobody said how often to save on such a machine, so that the run chooses."""
    resume: ResumePoint | None = None
    """The published checkpoint that the run goes on from, if it is not on this disk."""


@dataclass(frozen=True)
class Probed:
    """Which destinations proved that they can be written, and what the others said."""

    passed: tuple[Destination, ...] = ()
    faults: tuple[Fault, ...] = ()


def inspect_publishing(loaded: LoadedConfig, room: int = 0, *, opens_blocks: bool = True) -> Inspection:
    """Opens and probes a run's destinations, and refuses a run whose results would vanish with its machine.

    Stored blocks are in the Prefect server: where that may not be running yet, they are left to the run's first task.
    """
    config = loaded.config
    output_dir = Path(config.output_dir)
    wanted = publishing_entries(config)
    entries = [entry for entry in wanted if opens_blocks or "block" not in entry]
    try:
        destinations = _open(entries)
    except ConfigError as error:
        return Inspection(faults=error.faults)
    probed = probe_destinations(destinations, output_dir, room)
    machine = judge(output_dir, config.ephemeral)
    faults = list(probed.faults)
    is_open = len(entries) < len(wanted)
    if not is_open and (loss := find_loss(machine, probed.passed, output_dir)):
        faults.append(loss)
    resume, unfit = (None, ()) if faults else look_for_resume(loaded, destinations, opens_blocks=opens_blocks)
    is_ephemeral = machine.level == "ephemeral"
    is_paced = is_ephemeral and not _is_interval_given(loaded)
    cautions = [caution for destination in destinations for caution in destination.cautions()]
    warnings = (*cautions, *_warn(machine, loaded, is_paced))
    return Inspection(tuple(destinations), (*faults, *unfit), warnings, is_ephemeral, is_paced, resume)


def probe_destinations(
    destinations: Sequence[Destination], output_dir: Path, room: int = 0, timeout_s: float = PROBE_TIMEOUT_S
) -> Probed:
    """Has every destination take, give back and delete a small file, all at the same time.

    One fault per refusal; one that hangs is not waited for. `room` is what the first checkpoint will take there.
    """
    probes = [in_background(partial(_probe, each, output_dir, room), f"probe {each.name}") for each in destinations]
    wait(probes, timeout_s)
    answers = [
        _explain(each, probe, timeout_s) for each, probe in zip(destinations, probes, strict=True)
    ]  # in the order of the entries, whoever answered first
    passed = tuple(each for each, fault in zip(destinations, answers, strict=True) if fault is None)
    return Probed(passed, tuple(fault for fault in answers if fault))


def find_loss(ephemerality: Ephemerality, passed: Sequence[Destination], output_dir: Path) -> Fault | None:
    """The fault of a run whose results would vanish with the machine, as no destination that outlives it takes them."""
    if ephemerality.level != "ephemeral" or any(_outlives(each, output_dir) for each in passed):
        return None
    return Fault(
        WOULD_LOSE_RESULTS,
        None,
        "",
        f"this machine is thrown away and no destination that outlives it can be written: {ephemerality}",
        "a destination in publishing_config, or push_to_hub, that takes the results",
        "Add one, put output_dir on a volume that stays, or say --ephemeral=no if this machine does stay.",
    )


def _open(entries: Sequence[dict[str, Any]]) -> list[Destination]:
    if not entries:
        return []
    from flowtuner.publishing.registry import open_destinations  # brings Prefect

    return open_destinations(entries)


def _is_interval_given(loaded: LoadedConfig) -> bool:
    names = ("checkpoint_step_interval", "checkpoint_epoch_interval")
    return any(loaded.origin(name).kind != "default" for name in names)


def _warn(machine: Ephemerality, loaded: LoadedConfig, is_paced: bool) -> Iterator[str]:
    if machine.level == "unknown" and not publishing_entries(loaded.config):
        yield (
            f"ephemeral: {machine}, and nothing is published: if this machine is thrown away, so are the results. "
            "Name a destination in publishing_config, set push_to_hub, or say --ephemeral=no."
        )
    if is_paced:
        yield (
            "checkpoint_step_interval: this machine is thrown away and no interval was given, so a checkpoint is "
            f"saved every {PACE_S / 60:g} minutes or every {PACE_SHARE:.0%} of the run, whichever is sooner."
        )


def _outlives(destination: Destination, output_dir: Path) -> bool:
    folder = getattr(destination, "local_folder", None)
    return folder is None or lies_apart(folder, output_dir)


def _probe(destination: Destination, output_dir: Path, room: int) -> float:
    started = time.monotonic()
    destination.probe(output_dir)
    if room and hasattr(destination, "check_room"):
        destination.check_room(room)
    return time.monotonic() - started


def _explain(destination: Destination, probe: Future[float], timeout_s: float) -> Fault | None:
    option = f"publishing to {destination.name}"
    if not probe.done():
        problem = f"it did not answer within {timeout_s:g} s"
        return Fault(option, None, "", problem, suggestion="Is the service up, and is there a proxy in between?")
    error = probe.exception()
    if error is None:
        return None
    if not isinstance(error, PublishError | DestinationDown):
        raise error
    return Fault(option, None, "", str(error))
