"""The folder destination: verified copies, nothing sent twice, never a half model that looks whole."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from blocks.folder import FolderDestination, FolderStore
from flowtuner.errors import DestinationDown, PublishError
from flowtuner.publishing.manifest import MANIFEST_NAME, parse_manifest
from flowtuner.publishing.snapshot import Snapshot, checkpoint_unit, freeze, release_unit

RUN = "run 1"


def ignore(done: int, total: int) -> None:
    """A progress callback for those who do not look."""


def make_run(tmp_path: Path) -> Path:
    output_dir = tmp_path / "out" / RUN
    write(output_dir, {"pipeline/weights": "final weights", "README.md": "card"})
    return output_dir


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def take_checkpoint(output_dir: Path, step: int, text: str = "") -> Snapshot:
    folder = output_dir / f"checkpoint-{step}"
    write(folder, {"transformer/weights": text or f"weights {step}", "optimizer.bin": "same moments"})
    return freeze(checkpoint_unit(folder, "r1", step, {})).seal()


def take_release(output_dir: Path, step: int = 9) -> Snapshot:
    return freeze(release_unit(output_dir, "r1", step, {})).seal()


@pytest.fixture
def share(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


@pytest.fixture
def destination(share: Path) -> FolderDestination:
    return FolderDestination(path=share, base_path="team/models")


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_checkpoint_and_the_release_stand_side_by_side(
    tmp_path: Path, share: Path, destination: FolderDestination
) -> None:
    output_dir = make_run(tmp_path)
    result = destination.publish(take_checkpoint(output_dir, 20), ignore)
    destination.publish(take_release(output_dir), ignore)
    assert files_below(share / "team/models" / RUN) == [
        "README.md",
        "checkpoint-20/manifest.json",
        "checkpoint-20/optimizer.bin",
        "checkpoint-20/transformer/weights",
        "manifest.json",
        "pipeline/weights",
    ]
    assert (result.verified, result.files, result.sent_files, result.step) == (True, 2, 2, 20)


def test_what_is_there_already_is_not_copied_again(tmp_path: Path, destination: FolderDestination) -> None:
    output_dir = make_run(tmp_path)
    first = destination.publish(take_checkpoint(output_dir, 20), ignore)
    again = destination.publish(take_checkpoint(output_dir, 20), ignore)
    assert (again.sent_files, again.sent_bytes, again.manifest_sha256) == (0, 0, first.manifest_sha256)
    changed = destination.publish(take_checkpoint(output_dir, 20, "other weights"), ignore)
    assert (changed.sent_files, changed.sent_bytes) == (1, len("other weights"))


def test_a_truncated_copy_is_sent_again(tmp_path: Path, share: Path, destination: FolderDestination) -> None:
    output_dir = make_run(tmp_path)
    destination.publish(take_checkpoint(output_dir, 20), ignore)
    weights = share / "team/models" / RUN / "checkpoint-20/transformer/weights"
    weights.write_text("weig")
    assert destination.publish(take_checkpoint(output_dir, 20), ignore).sent_files == 1
    assert weights.read_text() == "weights 20"


def test_a_new_release_replaces_its_own_files_only(tmp_path: Path, share: Path, destination: FolderDestination) -> None:
    output_dir = make_run(tmp_path)
    destination.publish(take_checkpoint(output_dir, 20), ignore)
    destination.publish(take_release(output_dir), ignore)
    write(share / "team/models" / RUN, {"theirs.txt": "not ours"})
    shutil.rmtree(output_dir / "pipeline")
    write(output_dir, {"pytorch_lora_weights.safetensors": "lora"})
    destination.publish(take_release(output_dir, 10), ignore)
    assert files_below(share / "team/models" / RUN) == [
        "README.md",
        "checkpoint-20/manifest.json",
        "checkpoint-20/optimizer.bin",
        "checkpoint-20/transformer/weights",
        "manifest.json",
        "pytorch_lora_weights.safetensors",
        "theirs.txt",
    ]


def test_an_upload_cut_in_the_middle_never_looks_whole_and_goes_on(
    tmp_path: Path, share: Path, destination: FolderDestination
) -> None:
    output_dir = make_run(tmp_path)
    destination.publish(take_release(output_dir), ignore)
    write(output_dir, {"README.md": "new card", "pipeline/weights": "newer weights"})
    sent: list[int] = []

    def cut(done: int, total: int) -> None:
        sent.append(done)
        if len(sent) == 2:
            raise DestinationDown("the cable was pulled")

    place = share / "team/models" / RUN
    with pytest.raises(DestinationDown):
        destination.publish(take_release(output_dir), cut)
    # The earlier release is still whole: nothing was replaced before everything had arrived.
    assert (place / "README.md").read_text() == "card"
    assert destination.verify(take_release_of(place)) == []
    result = destination.publish(take_release(output_dir), ignore)
    assert result.sent_files == 2
    assert (place / "pipeline/weights").read_text() == "newer weights"
    assert not list(place.rglob(".incoming"))


def take_release_of(place: Path):  # type: ignore[no-untyped-def]
    return parse_manifest((place / MANIFEST_NAME).read_bytes())


def test_copies_that_nobody_came_back_for_are_removed(
    tmp_path: Path, share: Path, destination: FolderDestination
) -> None:
    def cut(done: int, total: int) -> None:
        raise DestinationDown("the cable was pulled")

    with pytest.raises(DestinationDown):
        destination.publish(take_checkpoint(make_run(tmp_path), 20), cut)
    store = FolderStore(share / "team/models")
    (share / "team/models" / RUN / "checkpoint-20/.incoming").mkdir(parents=True, exist_ok=True)
    store.drop_unfinished(RUN, 3600)
    assert list(share.rglob(".incoming"))
    store.drop_unfinished(RUN)
    assert not list(share.rglob(".incoming"))


def test_verification_finds_what_is_missing_short_or_changed(
    tmp_path: Path, share: Path, destination: FolderDestination
) -> None:
    output_dir = make_run(tmp_path)
    snapshot = take_checkpoint(output_dir, 20)
    destination.publish(snapshot, ignore)
    place = share / "team/models" / RUN / "checkpoint-20"
    assert destination.verify(snapshot.manifest, deep=True) == []
    (place / "transformer/weights").write_text("WEIGHTS 20")
    assert destination.verify(snapshot.manifest) == []
    assert "has other bytes" in destination.verify(snapshot.manifest, deep=True)[0]
    (place / "transformer/weights").write_text("w")
    assert "1 bytes instead of 10" in destination.verify(snapshot.manifest)[0]
    (place / "transformer/weights").unlink()
    assert "weights is missing" in destination.verify(snapshot.manifest)[0]
    (place / MANIFEST_NAME).unlink()
    assert "manifest.json is missing" in destination.verify(snapshot.manifest)[0]


def test_old_checkpoints_go_and_strangers_stay(tmp_path: Path, share: Path, destination: FolderDestination) -> None:
    output_dir = make_run(tmp_path)
    write(share / "team/models" / RUN, {"checkpoint-1/theirs": "no manifest of ours"})
    for step in (20, 40, 60):
        destination.publish(take_checkpoint(output_dir, step), ignore)
    assert destination.prune(RUN, 0, "checkpoint-60") == []
    assert destination.prune(RUN, 2, "checkpoint-60") == ["checkpoint-20"]
    assert sorted(os.listdir(share / "team/models" / RUN)) == ["checkpoint-1", "checkpoint-40", "checkpoint-60"]


def test_the_newest_is_never_pruned(tmp_path: Path, destination: FolderDestination) -> None:
    output_dir = make_run(tmp_path)
    for step in (20, 40):
        destination.publish(take_checkpoint(output_dir, step), ignore)
    assert destination.prune(RUN, 1, "checkpoint-20") == []


def test_include_and_exclude_are_per_destination(tmp_path: Path, share: Path) -> None:
    output_dir = make_run(tmp_path)
    snapshot = take_checkpoint(output_dir, 20)
    lean = FolderDestination(path=share, exclude=["optimizer.bin"])
    assert lean.publish(snapshot, ignore).files == 1
    assert lean.verify(snapshot.manifest, deep=True) == []
    with pytest.raises(PublishError, match="leave nothing"):
        FolderDestination(path=share, include=["*.nothing"]).publish(snapshot, ignore)


def test_uris_are_percent_encoded(tmp_path: Path, share: Path) -> None:
    snapshot = take_checkpoint(make_run(tmp_path), 20)
    public = FolderDestination(path=share, base_path="/a b/", public_base_url="https://models.example/x/")
    assert public.uri_of(snapshot.manifest) == "https://models.example/x/a%20b/run%201/checkpoint-20"
    uri = FolderDestination(path=share).uri_of(snapshot.manifest)
    assert uri is not None and " " not in uri
    assert Path(unquote(urlparse(uri).path)) == share / RUN / "checkpoint-20"


def test_the_probe_leaves_nothing_and_refuses_what_is_not_there(tmp_path: Path, share: Path) -> None:
    FolderDestination(path=share).probe(tmp_path / "out")
    assert files_below(share) == []
    with pytest.raises(PublishError, match="mount the share"):
        FolderDestination(path=share / "gone" / "models").probe()
    assert not (share / "gone").exists()


def test_the_last_part_of_a_path_is_made_when_it_is_new(share: Path) -> None:
    FolderDestination(path=share / "models").probe()
    assert files_below(share / "models") == []


def test_a_run_is_never_published_onto_itself(tmp_path: Path) -> None:
    output_dir = make_run(tmp_path)
    with pytest.raises(PublishError, match="onto itself"):
        FolderDestination(path=output_dir.parent).probe(output_dir)


def test_a_vanished_mount_is_worth_a_retry(tmp_path: Path, share: Path, destination: FolderDestination) -> None:
    snapshot = take_checkpoint(make_run(tmp_path), 20)
    share.rename(tmp_path / "elsewhere")
    with pytest.raises(DestinationDown, match="still mounted"):
        destination.publish(snapshot, ignore)


def test_a_file_in_the_way_needs_a_person(tmp_path: Path, share: Path, destination: FolderDestination) -> None:
    snapshot = take_checkpoint(make_run(tmp_path), 20)
    write(share, {"team": "a file"})
    with pytest.raises(PublishError, match="move it away"):
        destination.publish(snapshot, ignore)


def test_a_folder_in_the_way_of_a_file_needs_a_person(
    tmp_path: Path, share: Path, destination: FolderDestination
) -> None:
    snapshot = take_checkpoint(make_run(tmp_path), 20)
    (share / "team/models" / RUN / "checkpoint-20/optimizer.bin").mkdir(parents=True)
    with pytest.raises(PublishError, match="move it away"):
        destination.publish(snapshot, ignore)


@pytest.mark.parametrize(
    ("number", "kind", "remedy"),
    [
        (errno.ENOSPC, PublishError, "Free space"),
        (errno.EROFS, PublishError, "read-only"),
        (errno.EACCES, PublishError, "write permission"),
        (errno.ESTALE, DestinationDown, "still mounted"),
        (errno.EIO, DestinationDown, "still mounted"),
    ],
)
def test_faults_of_the_system_become_ours(
    tmp_path: Path,
    destination: FolderDestination,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[Exception],
    remedy: str,
) -> None:
    snapshot = take_checkpoint(make_run(tmp_path), 20)

    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind, match=remedy):
        destination.publish(snapshot, ignore)


def test_a_full_disk_is_known_before_the_first_byte(tmp_path: Path, share: Path) -> None:
    with pytest.raises(OSError, match="are free"):
        FolderStore(share).reserve(1 << 60)


def test_bytes_that_change_on_the_way_are_noticed(tmp_path: Path, destination: FolderDestination) -> None:
    snapshot = take_checkpoint(make_run(tmp_path), 20)
    (snapshot.folder / "transformer/weights").unlink()
    (snapshot.folder / "transformer/weights").write_text("weights XX")
    with pytest.raises(DestinationDown, match="other bytes"):
        destination.publish(snapshot, ignore)


def test_progress_counts_up_to_the_total(tmp_path: Path, destination: FolderDestination) -> None:
    seen: list[tuple[int, int]] = []
    destination.publish(take_checkpoint(make_run(tmp_path), 20), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (22, 22)
    assert seen == sorted(seen)
