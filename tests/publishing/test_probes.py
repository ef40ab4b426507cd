"""Destinations are probed together and in bounded time; a run that would lose its results is refused."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowtuner.errors import DestinationDown, PublishError
from flowtuner.options import LoadedConfig, TrainingConfig
from flowtuner.options.origin import Origin
from flowtuner.publishing import ephemeral
from flowtuner.publishing.preflight import find_loss, inspect_publishing, probe_destinations
from tests.publishing.test_ephemeral import LAYERS, NFS


class Probe:
    """A destination that does what it is told when it is probed."""

    def __init__(self, name: str, act: Any = lambda: None, local_folder: Path | None = None) -> None:
        self.name, self._act, self.local_folder = name, act, local_folder

    def probe(self, output_dir: Path | None = None) -> None:
        self._act()

    def check_room(self, bytes: int) -> None:
        if bytes > 1000:
            raise PublishError(f"{self.name} has no room")


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_all_are_probed_at_the_same_time(tmp_path: Path) -> None:
    together = threading.Barrier(4)  # nobody passes before all four are there
    probes: list[Any] = [Probe(f"p{number}", lambda: together.wait(20)) for number in range(4)]
    probed = probe_destinations(probes, tmp_path, timeout_s=30)
    assert [each.name for each in probed.passed] == ["p0", "p1", "p2", "p3"]
    assert probed.faults == ()


def test_one_that_hangs_has_a_message_of_its_own_in_bounded_time(tmp_path: Path, released: threading.Event) -> None:
    def refuse() -> None:
        raise DestinationDown("come back later")

    probes: list[Any] = [Probe("hangs", released.wait), Probe("well"), Probe("down", refuse)]
    started = time.monotonic()
    probed = probe_destinations(probes, tmp_path, timeout_s=0.5)
    assert time.monotonic() - started < 10
    assert [each.name for each in probed.passed] == ["well"]
    assert [str(fault).partition(";")[0] for fault in probed.faults] == [
        "publishing to hangs: it did not answer within 0.5 s",
        "publishing to down: come back later",
    ]


def test_one_without_room_for_a_checkpoint_is_refused(tmp_path: Path) -> None:
    probes: list[Any] = [Probe("full")]
    assert probe_destinations(probes, tmp_path, room=1000).faults == ()
    assert "full has no room" in str(probe_destinations(probes, tmp_path, room=1001).faults[0])


def test_a_full_disk_is_found_before_the_run(tmp_path: Path) -> None:
    from blocks.folder import FolderDestination

    probed = probe_destinations([FolderDestination(path=tmp_path / "share")], tmp_path / "run", room=1 << 60)
    assert "Free space there" in str(probed.faults[0])


def test_only_a_destination_that_outlives_the_machine_saves_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ephemeral, "_read_mounts", lambda: f"{LAYERS}\n{NFS}")
    output = Path("/home/user/output")
    machine = ephemeral.judge(output, "auto", {})
    assert machine.level == "ephemeral"
    beside, share, service = (Probe("x", local_folder=place) for place in (Path("/home/user/c"), Path("/data/m"), None))
    assert find_loss(machine, [], output) is not None
    loss = find_loss(machine, [beside], output)  # type: ignore[list-item]
    assert loss is not None and "--ephemeral=no" in str(loss) and "overlay" in str(loss)
    assert find_loss(machine, [beside, share], output) is None  # type: ignore[list-item]
    assert find_loss(machine, [service], output) is None  # type: ignore[list-item]


def loaded(tmp_path: Path, given: tuple[str, ...] = (), **values: Any) -> LoadedConfig:
    options = {"model_family": "flux", "model_type": "lora", "output_dir": str(tmp_path)} | values
    origins = {name: Origin("file", "config.json") for name in given}
    return LoadedConfig(TrainingConfig.model_validate(options), origins=origins)


def test_a_machine_that_vanishes_needs_a_destination_and_an_interval(tmp_path: Path) -> None:
    lost = inspect_publishing(loaded(tmp_path, ephemeral="yes"))
    assert [fault.option for fault in lost.faults] == ["would_lose_results"]
    assert lost.is_paced and "every 10 minutes or every 5%" in lost.warnings[0]
    given = inspect_publishing(loaded(tmp_path, ("checkpoint_step_interval",), ephemeral="yes"))
    assert (given.is_paced, given.warnings) == (False, ())
    assert inspect_publishing(loaded(tmp_path, ephemeral="no")).faults == ()


def test_a_stored_block_is_left_to_the_run(tmp_path: Path) -> None:
    block = loaded(tmp_path, ephemeral="yes", publishing_config=[{"provider": "s3", "block": "nobodys"}])
    assert inspect_publishing(block, opens_blocks=False).faults == ()


def test_what_is_unknown_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ephemeral, "_read_mounts", str)
    monkeypatch.setenv("JOB_ID", "7")
    for name in (*ephemeral.HUB_JOB, *(name for name, _ in ephemeral.MACHINES)):
        monkeypatch.delenv(name, raising=False)
    found = inspect_publishing(loaded(tmp_path))
    assert found.faults == ()
    assert "JOB_ID is set" in found.warnings[0]
    share = json.dumps([{"provider": "folder", "path": str(tmp_path)}])
    assert inspect_publishing(loaded(tmp_path / "run", publishing_config=share)).warnings == ()
