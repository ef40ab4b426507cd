"""The outbox: what is sent while training goes on, and what becomes of it when things go wrong."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow
from prefect.futures import PrefectConcurrentFuture
from prefect.states import Completed

from blocks.folder import FolderDestination
from flowtuner.engine.events import NOTIFICATION, PUBLISH, EventLog, read_events
from flowtuner.errors import ConfigError, DestinationDown, PublishError
from flowtuner.publishing.registry import open_destinations
from flowtuner.publishing.snapshot import Unit, checkpoint_unit, freeze
from tasks.outbox import Delivery, Outbox, _Shipment
from tasks.publish import PublishStoppedError, SupersededError, publish
from tasks.retries import Patience, publish_task

pytestmark = pytest.mark.usefixtures("prefect_api")


def make_checkpoint(output_dir: Path, step: int) -> Unit:
    folder = output_dir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "weights").write_text(f"weights {step}")
    return checkpoint_unit(folder, "run", step, {})


@pytest.fixture
def events(tmp_path: Path) -> Any:
    log = EventLog(tmp_path / "events.jsonl", "run")
    yield log
    log.close()


def test_only_what_may_pass_is_tried_again() -> None:
    calls: list[str] = []

    @publish_task("upload")
    def flaky() -> str:
        calls.append("flaky")
        if len(calls) == 1:
            raise DestinationDown("later")
        return "done"

    @publish_task("upload")
    def refused() -> None:
        calls.append("refused")
        raise PublishError("never")

    @flow
    def both() -> str:
        answer = flaky()
        with pytest.raises(PublishError):
            refused()
        return answer

    assert both() == "done"
    assert calls == ["flaky", "flaky", "refused"]


def test_what_was_rotated_meanwhile_is_published_and_what_failed_is_sent_again(
    tmp_path: Path, share: Path, events: EventLog
) -> None:
    output_dir = tmp_path / "run"
    (share / "run").write_text("in the way")
    destination = FolderDestination(path=share)

    @flow
    def upload() -> tuple[list[Delivery], list[Delivery]]:
        with Outbox([destination], events, keep=2) as outbox:
            first = make_checkpoint(output_dir, 1)
            outbox.send(first)
            failed = outbox.collect()
            (share / "run").unlink()
            second = make_checkpoint(output_dir, 2)
            outbox.send(second)
            return failed, outbox.settle([first, second])

    failed, settled = upload()
    assert [each.is_verified for each in failed] == [False]
    assert "move it away" in str(failed[0].error)
    assert {(each.unit.name, each.is_verified) for each in settled} == {("checkpoint-1", True), ("checkpoint-2", True)}
    assert not (output_dir / ".spool").exists()
    states = [event.data["state"] for event in read_events(events.path) if event.type == PUBLISH]
    assert states.count("failed") == 1


def test_checkpoints_beyond_those_that_are_kept_are_nobodys_loss(tmp_path: Path, share: Path, events: EventLog) -> None:
    """They stayed here because their uploads waited; sent at last, they would only push newer ones out."""
    output_dir = tmp_path / "run"
    destination = FolderDestination(path=share)

    @flow
    def upload() -> list[Delivery]:
        units = [make_checkpoint(output_dir, step) for step in (1, 2, 3)]
        with Outbox([destination], events, keep=1) as outbox:
            outbox.send(units[2])
            return outbox.settle(units)

    assert [(each.unit.name, each.is_verified) for each in upload()] == [("checkpoint-3", True)]
    assert [path.name for path in (share / "run").iterdir()] == ["checkpoint-3"]


def test_a_checkpoint_that_cannot_be_frozen_or_read_is_not_lost_silently(
    tmp_path: Path, share: Path, events: EventLog
) -> None:
    output_dir = tmp_path / "run"
    unit = make_checkpoint(output_dir, 1)
    (output_dir / "checkpoint-1/weights").unlink()
    damaged = make_checkpoint(output_dir, 2)
    (output_dir / "checkpoint-2/checkpoint_manifest.json").write_text("{}")
    damaged = checkpoint_unit(output_dir / "checkpoint-2", "run", 2, {})

    @flow
    def upload() -> list[Delivery]:
        with Outbox([FolderDestination(path=share)], events, keep=0) as outbox:
            outbox.send(unit)
            outbox.send(damaged)
            return outbox.collect()

    deliveries = upload()
    assert [each.is_verified for each in deliveries] == [False, False]
    told = [event.data["message"] for event in read_events(events.path) if event.type == NOTIFICATION]
    assert "could not be frozen" in told[0]
    assert "cannot be read" in told[1]


def test_a_late_callback_leaves_alone_what_was_frozen_again(tmp_path: Path, share: Path) -> None:
    unit = make_checkpoint(tmp_path / "run", 1)
    frozen = freeze(unit)
    upload, sealed = Future[Any](), Future[Any]()
    shipment = _Shipment(
        frozen,
        PrefectConcurrentFuture(uuid4(), sealed),
        [(FolderDestination(path=share), PrefectConcurrentFuture(uuid4(), upload))],
    )
    shipment.thaw()
    again = freeze(unit)
    upload.set_result(Completed())
    assert (again.folder / "weights").read_text() == "weights 1"


def test_an_upload_stops_when_the_run_does(tmp_path: Path, share: Path, events: EventLog) -> None:
    stop = threading.Event()
    stop.set()
    snapshot = freeze(make_checkpoint(tmp_path / "run", 1)).seal()

    @flow
    def upload() -> None:
        with pytest.raises(PublishStoppedError):
            publish(FolderDestination(path=share), snapshot, events, stop)

    upload()
    assert not list(share.rglob("manifest.json"))


def test_a_checkpoint_that_was_overtaken_is_left_out(tmp_path: Path, share: Path, events: EventLog) -> None:
    snapshots = [freeze(make_checkpoint(tmp_path / "run", step)).seal() for step in (1, 2, 3)]
    destination = FolderDestination(path=share)

    @flow
    def upload() -> None:
        with pytest.raises(SupersededError, match="2 newer"):
            publish(destination, snapshots[0], events, threading.Event(), 2)
        publish(destination, snapshots[1], events, threading.Event(), 2)

    upload()
    assert (share / "run/checkpoint-2/manifest.json").is_file()


def test_an_entry_says_which_checkpoints_wait(tmp_path: Path, share: Path, events: EventLog) -> None:
    snapshots = [freeze(make_checkpoint(tmp_path / "run", step)).seal() for step in (1, 2, 3)]

    @flow
    def upload() -> None:
        with pytest.raises(SupersededError, match="1 newer"):
            publish(FolderDestination(path=share, queue="newest"), snapshots[1], events, threading.Event(), 5)
        publish(FolderDestination(path=share, queue="all"), snapshots[0], events, threading.Event(), 1)

    upload()
    assert [path.name for path in (share / "run").iterdir()] == ["checkpoint-1"]


def test_an_upload_that_is_given_up_says_for_how_long_it_was_tried(
    tmp_path: Path, share: Path, events: EventLog
) -> None:
    snapshot = freeze(make_checkpoint(tmp_path / "run", 1)).seal()
    gone = FolderDestination(path=share / "gone")
    attempts = Patience(2, iter(range(99)).__next__)

    @flow
    def upload() -> None:
        with pytest.raises(PublishError, match="without a byte getting through"):
            publish(gone, snapshot, events, threading.Event(), 0, None, attempts)

    upload()
    states = [event.data["state"] for event in read_events(events.path) if event.type == PUBLISH]
    assert states == ["uploading", "uploading", "uploading", "failed"]


def test_a_stored_block_is_used_by_its_name(share: Path) -> None:
    FolderDestination(path=share, base_path="stored").save("my-share", overwrite=True)
    entry = {"provider": "folder", "block": "my-share", "required": False}
    (destination,) = open_destinations([entry])
    assert isinstance(destination, FolderDestination)
    assert (destination.name, destination.base_path, destination.required) == ("my-share", "stored", False)
    with pytest.raises(ConfigError, match="no such block"):
        open_destinations([entry | {"block": "nobody-saved-this"}])
