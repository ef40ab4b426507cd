"""Reading back: whole or not there, gone on with inside a file, and never beside its own folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowtuner.durable import FileRecord
from flowtuner.errors import DestinationDown, PublishError
from flowtuner.publishing.fetch import fetch_unit
from flowtuner.publishing.manifest import Manifest

FILES = {"transformer/weights.safetensors": os.urandom(1000), "optimizer.bin": b"moments", "empty": b""}
BLOCK = 100


def describe(files: dict[str, bytes]) -> Manifest:
    records = [FileRecord(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in sorted(files.items())]
    return Manifest("run", "checkpoint-20", "checkpoint", 20, "r1", "2026-01-01", tuple(records))


class Shelf:
    """Files in memory that end early when told to, and remember what was asked for."""

    def __init__(self, files: dict[str, bytes], break_after: int | None = None) -> None:
        self.files = files
        self.break_after = break_after
        self.asked: list[tuple[str, int]] = []

    def chunks(self, path: str, offset: int) -> Iterator[bytes]:
        self.asked.append((path, offset))
        data = self.files[path]
        for start in range(offset, len(data), BLOCK):
            if self.break_after is not None and start - offset >= self.break_after:
                raise DestinationDown("the cable was pulled")
            yield data[start : start + BLOCK]

    def offsets(self, path: str) -> list[int]:
        return [offset for asked, offset in self.asked if asked == path]


def ignore(done: int, total: int) -> None:
    """A progress callback for those who do not look."""


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_unit_comes_whole_and_is_not_fetched_again(tmp_path: Path) -> None:
    shelf, target, seen = Shelf(FILES), tmp_path / "checkpoint-20", []
    fetch_unit(shelf.chunks, describe(FILES), target, lambda done, total: seen.append((done, total)))
    assert read_folder(target) == FILES
    assert (seen[-1], seen) == ((1007, 1007), sorted(seen))
    assert os.listdir(tmp_path) == ["checkpoint-20"]
    shelf.asked.clear()
    fetch_unit(shelf.chunks, describe(FILES), target, ignore)
    assert shelf.asked == []


def test_an_interrupted_file_goes_on_at_its_offset_and_nothing_half_is_seen(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint-20"
    shelf = Shelf(FILES, break_after=300)
    for attempt in range(1, 4):
        with pytest.raises(DestinationDown):
            fetch_unit(shelf.chunks, describe(FILES), target, ignore)
        assert not target.exists()
        assert shelf.offsets("transformer/weights.safetensors")[-1] == 300 * (attempt - 1)
    shelf.break_after = None
    fetch_unit(shelf.chunks, describe(FILES), target, ignore)
    assert read_folder(target) == FILES
    assert shelf.offsets("transformer/weights.safetensors") == [0, 300, 600, 900]
    assert shelf.offsets("optimizer.bin") == [0]


def test_a_file_that_ends_early_is_asked_for_again_and_then_given_up(tmp_path: Path) -> None:
    shelf = Shelf({**FILES, "optimizer.bin": b"mom"})
    with pytest.raises(DestinationDown, match=r"optimizer\.bin ended after 3 of 7"):
        fetch_unit(shelf.chunks, describe(FILES), tmp_path / "checkpoint-20", ignore)


@pytest.mark.parametrize("wrong", [b"MOMENTS", b"moments and more of them"])
def test_wrong_bytes_are_refused(tmp_path: Path, wrong: bytes) -> None:
    shelf = Shelf({**FILES, "optimizer.bin": wrong})
    with pytest.raises(PublishError, match=r"checkpoint-20/optimizer\.bin has other bytes"):
        fetch_unit(shelf.chunks, describe(FILES), tmp_path / "checkpoint-20", ignore)
    assert not (tmp_path / "checkpoint-20").exists()


def test_a_damaged_part_of_an_earlier_attempt_costs_one_file_only(tmp_path: Path) -> None:
    target, shelf = tmp_path / "checkpoint-20", Shelf(FILES, break_after=300)
    with pytest.raises(DestinationDown):
        fetch_unit(shelf.chunks, describe(FILES), target, ignore)
    [part] = [path for path in tmp_path.rglob(".parts/*") if path.stat().st_size == 300]
    part.write_bytes(b"x" * 300)
    shelf.break_after = None
    fetch_unit(shelf.chunks, describe(FILES), target, ignore)
    assert read_folder(target) == FILES
    assert shelf.offsets("transformer/weights.safetensors") == [0, 300, 0]


def test_a_damaged_folder_is_mended_with_the_files_that_are_wrong(tmp_path: Path) -> None:
    target, shelf = tmp_path / "checkpoint-20", Shelf(FILES)
    fetch_unit(shelf.chunks, describe(FILES), target, ignore)
    (target / "optimizer.bin").write_bytes(b"MOMENTS")
    shelf.asked.clear()
    fetch_unit(shelf.chunks, describe(FILES), target, ignore)
    assert read_folder(target) == FILES
    assert shelf.asked == [("optimizer.bin", 0)]


def test_an_earlier_version_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint-20"
    with pytest.raises(DestinationDown):
        shelf = Shelf({**FILES, "old.bin": b"old"}, break_after=300)
        fetch_unit(shelf.chunks, describe(shelf.files), target, ignore)
    fetch_unit(Shelf(FILES).chunks, describe(FILES), target, ignore)
    assert read_folder(target) == FILES


@pytest.mark.parametrize("path", ["../outside", "/etc/outside", "a/../../outside", ".parts/x", ""])
def test_a_manifest_cannot_write_outside_of_its_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(PublishError, match="outside of its own folder"):
        fetch_unit(Shelf({path: b"x"}).chunks, describe({path: b"x"}), tmp_path / "checkpoint-20", ignore)
    assert os.listdir(tmp_path) == []


def test_who_is_stopped_goes_on_later(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        fetch_unit(Shelf(FILES).chunks, describe(FILES), tmp_path / "checkpoint-20", stop)
    assert not (tmp_path / "checkpoint-20").exists()
    fetch_unit(Shelf(FILES).chunks, describe(FILES), tmp_path / "checkpoint-20", ignore)
    assert read_folder(tmp_path / "checkpoint-20") == FILES
