"""Machines that vanish: killed at random instants with their disks; a fresh one goes on from what is published."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from flowtuner.engine.checkpoints import find_faults, read_state
from flowtuner.publishing.registry import open_destinations
from tests.conftest import tiny_options
from tests.e2e.machines import RUN, live
from tests.e2e.test_resume import weights_of
from tests.fakes.s3.servers import KEYS
from tests.flows.conftest import FAKE_ENGINE, counted_options

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

INTERVAL = 20
COUNTED_KILLS, TRAINED_KILLS = 46, 8  # of each of two destinations, and with a model that learns: 100 together


def open_entry(entry: dict[str, Any]) -> Any:
    shown = {"{env:S3_KEY}": KEYS["access_key"], "{env:S3_SECRET}": KEYS["secret_key"]}
    [destination] = open_destinations([{key: shown.get(str(value), value) for key, value in entry.items()}])
    return destination


def newest_there(entry: dict[str, Any], scratch: Path) -> int:
    """The newest step at a destination, after everything there that looks whole was proved, and the newest loaded."""
    destination = open_entry(entry)
    units = [unit for unit in destination.units(RUN) if unit.kind == "checkpoint"]
    for unit in units:
        assert destination.verify(unit, deep=True) == []
    if not units:
        return 0
    folder = scratch / units[-1].name
    destination.fetch(units[-1], folder, lambda done, total: None)
    assert find_faults(folder) == []
    assert read_state(folder).global_step == units[-1].step
    shutil.rmtree(scratch)
    return int(units[-1].step)


def kill_many(
    options: dict[str, Any],
    entry: dict[str, Any],
    root: Path,
    kills: int,
    environment: dict[str, str],
    dice: random.Random,
    interval: int,
    span_s: float,
) -> list[tuple[int, int]]:
    """Lets machine after machine vanish; of each, the steps that were lost and how many of them were being sent."""
    there, losses = newest_there(entry, root / "scratch"), []
    for number in range(kills):
        disk = root / f"machine-{number}"
        is_early = dice.random() < 0.15  # before its first step: while it checks, fetches or loads
        machine = live(options, disk, dice.uniform(0, span_s), environment, is_early=is_early)
        shutil.rmtree(disk)
        known = there
        assert machine.resumed in (known, None), "a fresh machine goes on from the newest that is published"
        there = newest_there(entry, root / "scratch")
        assert there >= max(machine.verified, default=known), "what was called verified is there"
        on_its_way = [step for step in machine.saved if step > there]
        # All but the steps that were saved and on their way when the machine vanished.
        lost = max(0, machine.reached - there)
        assert lost <= interval * (1 + len(on_its_way))
        losses.append((lost, len(on_its_way)))
    return losses


def measure_span(options: dict[str, Any], root: Path, environment: dict[str, str], interval: int) -> float:
    """How long after its first step a machine may live: twice as long as it takes to have two checkpoints published."""
    started = live(options | {"max_train_steps": 2 * interval}, root / "measured", None, environment)
    return max(2.5, 2 * started.seconds)


def tell(name: str, losses: list[tuple[int, int]], interval: int) -> None:
    """One line for docs/benchmarks.md."""
    in_time = [lost for lost, waiting in losses if not waiting]
    worst, worst_in_time = max(lost for lost, _ in losses), max(in_time, default=0)
    print(
        f"\n{name}: {len(losses)} kills; {len(in_time)} with nothing on its way, of those at most "
        f"{worst_in_time / interval:.2f} intervals lost; of all at most {worst / interval:.2f}"
    )
    assert worst_in_time <= interval


@pytest.mark.parametrize("where", ["folder", "bucket"])
@pytest.mark.usefixtures("server")
def test_no_kill_loses_more_than_an_interval(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    share = tmp_path / "share"
    share.mkdir()
    options = counted_options(tmp_path, share)
    entry = options["publishing_config"][0] if where == "folder" else request.getfixturevalue("bucket")
    options |= {
        "publishing_config": [entry],
        "max_train_steps": 100_000,
        "checkpoint_step_interval": INTERVAL,
        "validation_step_interval": 0,
        "checkpoints_total_limit": 3,
    }
    environment = os.environ | {"PYTHONPATH": str(FAKE_ENGINE), "FAKE_ENGINE": "slow", "OMP_NUM_THREADS": "1"}
    span_s = measure_span(options, tmp_path, environment, INTERVAL)
    losses = kill_many(options, entry, tmp_path, COUNTED_KILLS, environment, random.Random(where), INTERVAL, span_s)
    tell(where, losses, INTERVAL)
    there = newest_there(entry, tmp_path / "scratch")
    assert there > 2 * INTERVAL, "the machines got somewhere"
    last = live(options | {"max_train_steps": there + 4}, tmp_path / "last", None, environment)
    assert (last.resumed, last.reached) == (there, there + 4)


@pytest.mark.usefixtures("server")
def test_machines_that_vanish_train_the_same_model(tmp_path: Path, tiny_model: Path, pictures: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    entry = {"provider": "folder", "path": str(share), "name": "share"}
    options = tiny_options(tmp_path, tiny_model, pictures, max_train_steps=60, checkpoint_step_interval=3)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    straight = live(options | {"publishing_config": []}, tmp_path / "straight", None, environment)
    assert straight.reached == 60
    options |= {"publishing_config": [entry], "checkpoints_total_limit": 3}
    losses = kill_many(options, entry, tmp_path, TRAINED_KILLS, environment, random.Random(1), 3, 8.0)
    tell("a model that learns", losses, 3)
    live(options, tmp_path / "last", None, environment)
    assert weights_of(share / RUN) == weights_of(tmp_path / "straight" / RUN)
    load_release(share / RUN / "pipeline")


def load_release(folder: Path) -> None:
    from diffusers import PixArtTransformer2DModel

    assert PixArtTransformer2DModel.from_pretrained(folder / "transformer").num_parameters() > 0
