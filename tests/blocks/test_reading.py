"""What destinations give back: found by run or by URI, the newest last, byte for byte, gone on with after a cut."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blocks.dropbox import DropboxDestination
from blocks.folder import FolderDestination
from blocks.s3 import S3Destination
from flowtuner.errors import DestinationDown, PublishError
from flowtuner.publishing.destination import Destination, Place
from flowtuner.publishing.registry import known_destinations
from tests.blocks.conftest import DROPBOX_TOKEN, RUN, ignore, take_checkpoint
from tests.fakes.s3.servers import KEYS

BIG = {"transformer/weights.safetensors": os.urandom(3 << 20), "training_state.json": b"{}", "a b/ü+.bin": b"moments"}

Opener = Callable[[], Any]


@pytest.fixture(params=["folder", "s3", "dropbox"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens a destination, a fresh one every time; a new provider adds itself here."""
    if request.param == "folder":
        (tmp_path / "share").mkdir()
        return lambda: FolderDestination(path=tmp_path / "share", base_path="team/a b")
    if request.param == "dropbox":
        request.getfixturevalue("account")
        return lambda: DropboxDestination(token=DROPBOX_TOKEN, base_path="team/a b")
    request.getfixturevalue("s3")
    url = request.getfixturevalue("s3_url")
    return lambda: S3Destination(
        bucket="models", endpoint_url=url, base_path="team/a b", region="us-east-1", part_mib=5, **KEYS
    )


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_published_is_found_and_comes_back_as_it_was(tmp_path: Path, opened: Opener) -> None:
    destination: Destination = opened()
    assert destination.units(RUN) == []
    snapshots = [take_checkpoint(tmp_path, step, BIG) for step in (100, 20)]
    for snapshot in snapshots:
        destination.publish(snapshot, ignore)
    assert {unit.name for unit in destination.units(RUN)} == {"checkpoint-100", "checkpoint-20"}
    unit = next(unit for unit in destination.units(RUN) if unit.step == 20)
    assert unit == snapshots[1].manifest
    target = tmp_path / "fresh disk" / "checkpoint-20"
    destination.fetch(unit, target, ignore)
    assert read_folder(target) == BIG


def test_its_own_links_lead_back_to_it(tmp_path: Path, opened: Opener) -> None:
    destination = opened()
    snapshot = take_checkpoint(tmp_path, 20)
    destination.publish(snapshot, ignore)
    uri = destination.uri_of(snapshot.manifest)
    elsewhere = destination.model_copy(update={"base_path": "others"})
    for one in (destination, elsewhere):
        found, place = one.follow(uri)
        assert place == Place(RUN, "checkpoint-20")
        assert found.units(RUN) == [snapshot.manifest]
        assert found.follow(uri.removesuffix("/checkpoint-20"))[1] == Place(RUN)
    assert destination.follow("gopher://elsewhere/run") is None


def test_a_download_that_was_cut_goes_on_inside_the_file(
    tmp_path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = opened()
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    destination.publish(snapshot, ignore)
    target = tmp_path / "fresh disk" / "checkpoint-20"
    with destination._open_store() as store:
        kind = type(store)
    chunks, offsets = kind.chunks, []

    def cut(self: Any, key: str, offset: int) -> Any:
        for block in chunks(self, key, offset):
            yield block[:1000]
            if len(block) > 1000:
                raise DestinationDown("the cable was pulled")

    monkeypatch.setattr(kind, "chunks", cut)
    with pytest.raises(DestinationDown):
        destination.fetch(snapshot.manifest, target, ignore)
    assert not target.exists()

    def watch(self: Any, key: str, offset: int) -> Any:
        offsets.append(offset)
        return chunks(self, key, offset)

    monkeypatch.setattr(kind, "chunks", watch)
    opened().fetch(snapshot.manifest, target, ignore)
    assert offsets == [1000]
    assert read_folder(target) == BIG


def test_a_file_that_is_gone_there_is_named(tmp_path: Path, opened: Opener) -> None:
    destination = opened()
    snapshot = take_checkpoint(tmp_path, 20)
    destination.publish(snapshot, ignore)
    with destination._open_store() as store:
        store.delete(f"{snapshot.manifest.prefix}/optimizer.bin")
    with pytest.raises(PublishError, match=r"optimizer\.bin is missing"):
        destination.fetch(snapshot.manifest, tmp_path / "fresh disk" / "checkpoint-20", ignore)


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("s3://models/team/run%201/checkpoint-20", Place("run 1", "checkpoint-20")),
        ("file:///mnt/share/run/", Place("run")),
    ],
)
def test_a_uri_opens_a_destination_of_its_own(uri: str, place: Place) -> None:
    kinds = known_destinations().values()
    [entry] = [entry for kind in kinds if (entry := kind.entry_of_uri(uri)) is not None]
    destination = known_destinations()[entry["provider"]].from_entry(entry, "resume_from_checkpoint")
    found = destination.follow(uri)
    assert found is not None
    assert found[1] == place


def test_other_uris_open_none() -> None:
    for kind in known_destinations().values():
        assert kind.entry_of_uri("gopher://somewhere/run") is None
        assert kind.entry_of_uri("latest") is None
