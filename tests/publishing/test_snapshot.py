"""What is published, how it is held still, and what its manifest says."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flowtuner.errors import PublishError
from flowtuner.publishing.manifest import parse_manifest
from flowtuner.publishing.selection import list_all_files, list_checkpoint_files, list_release_files, walk
from flowtuner.publishing.snapshot import (
    checkpoint_unit,
    claimed_spool,
    folder_unit,
    freeze,
    release_unit,
    remove_spool,
    thaw,
)


def test_a_checkpoint_is_published_without_hidden_files(output_dir: Path) -> None:
    assert list_checkpoint_files(output_dir / "checkpoint-20") == [
        "checkpoint_manifest.json",
        "optimizer.bin",
        "training_state.json",
        "transformer/diffusion_pytorch_model.safetensors",
    ]


def test_the_release_is_an_allow_list(output_dir: Path) -> None:
    assert list_release_files(output_dir) == [
        "README.md",
        "pipeline/model_index.json",
        "pipeline/transformer/diffusion_pytorch_model.safetensors",
    ]


def test_a_release_elsewhere_in_the_output_folder_is_found(output_dir: Path) -> None:
    (output_dir / "merged").mkdir()
    (output_dir / "merged/weights.safetensors").write_text("w")
    assert "merged/weights.safetensors" in list_release_files(output_dir, output_dir / "merged")


def test_a_frozen_checkpoint_survives_rotation_and_shares_its_bytes(output_dir: Path) -> None:
    source = output_dir / "checkpoint-20"
    frozen = freeze(checkpoint_unit(source, "run", 20, {"job_id": "j"}))
    weights = frozen.folder / "transformer/diffusion_pytorch_model.safetensors"
    assert os.stat(weights).st_nlink == 2
    shutil.rmtree(source)
    manifest = frozen.seal().manifest
    assert {record.path: record.sha256 for record in manifest.files}[
        "transformer/diffusion_pytorch_model.safetensors"
    ] == hashlib.sha256(b"w20").hexdigest()
    assert (manifest.run, manifest.name, manifest.step, manifest.metadata) == (
        "my run",
        "checkpoint-20",
        20,
        {"job_id": "j"},
    )
    thaw(frozen)
    remove_spool(frozen.unit)
    assert not (output_dir / ".spool").exists()


def test_without_hard_links_the_files_are_copied(output_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    frozen = freeze(release_unit(output_dir, "run", 30, {}))
    assert (frozen.folder / "README.md").read_text() == "# model"


def test_a_damaged_checkpoint_is_not_published(output_dir: Path) -> None:
    (output_dir / "checkpoint-20/optimizer.bin").write_text("momentS")
    frozen = freeze(checkpoint_unit(output_dir / "checkpoint-20", "run", 20, {}))
    with pytest.raises(PublishError, match=r"damaged on this disk.*optimizer\.bin has other bytes"):
        frozen.seal()


def test_a_checkpoint_with_a_missing_file_is_not_published(output_dir: Path) -> None:
    (output_dir / "checkpoint-20/optimizer.bin").unlink()
    frozen = freeze(checkpoint_unit(output_dir / "checkpoint-20", "run", 20, {}))
    with pytest.raises(PublishError, match=r"optimizer\.bin is missing"):
        frozen.seal()


def test_an_empty_folder_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="Give a checkpoint folder"):
        release_unit(tmp_path, "run", 1, {})


def test_a_manifest_reads_back_as_it_was_and_nothing_else_does(output_dir: Path) -> None:
    manifest = freeze(release_unit(output_dir, "run", 30, {"a": 1})).seal().manifest
    assert parse_manifest(manifest.to_bytes()) == manifest
    assert [parse_manifest(data) for data in (None, b"", b"[]", b"{}", b'{"version": 2}')] == [None] * 5


def test_include_and_exclude_name_patterns_or_folders(output_dir: Path) -> None:
    manifest = freeze(checkpoint_unit(output_dir / "checkpoint-20", "run", 20, {})).seal().manifest
    assert [record.path for record in manifest.select(["transformer"], []).files] == [
        "transformer/diffusion_pytorch_model.safetensors"
    ]
    assert [record.path for record in manifest.select([], ["*.bin", "transformer/"]).files] == [
        "checkpoint_manifest.json",
        "training_state.json",
    ]


FREEZES_AND_WAITS = """
import sys
from pathlib import Path
from flowtuner.publishing.snapshot import checkpoint_unit, claimed_spool, freeze
with claimed_spool(Path(sys.argv[1])):
    freeze(checkpoint_unit(Path(sys.argv[1]) / "checkpoint-20", "run", 20, {}))
    print("frozen", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_run_froze_goes_at_the_next_start_and_what_a_living_one_froze_stays(output_dir: Path) -> None:
    frozen = output_dir / ".spool" / "checkpoint-20" / "optimizer.bin"
    words = [sys.executable, "-c", FREEZES_AND_WAITS, str(output_dir)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"frozen\n"
        with claimed_spool(output_dir):
            assert frozen.is_file()
        other.kill()
    assert frozen.is_file()
    with claimed_spool(output_dir):
        assert not frozen.exists()
        assert (output_dir / "checkpoint-20" / "optimizer.bin").is_file()


def test_a_whole_output_folder_is_all_but_checkpoints_credentials_and_what_is_unfinished(output_dir: Path) -> None:
    frozen = freeze(folder_unit(output_dir, "run", 30, {}))
    (output_dir / "logs/events.jsonl").write_text("grows on")
    manifest = frozen.seal().manifest
    assert [record.path for record in manifest.files] == [
        "README.md",
        "cache/vae/shard.safetensors",
        "logs/events.jsonl",
        "notes.txt",
        "pipeline/model_index.json",
        "pipeline/training.log",
        "pipeline/transformer/diffusion_pytorch_model.safetensors",
    ]
    assert (manifest.prefix, manifest.kind, manifest.name) == ("my run", "folder", "output_dir")


def test_what_vanishes_while_a_folder_is_frozen_is_not_missed(output_dir: Path) -> None:
    unit = folder_unit(output_dir, "run", 30, {})
    (output_dir / "notes.txt").unlink()
    assert "notes.txt" not in [record.path for record in freeze(unit).seal().manifest.files]


def test_what_arrives_late_is_not_the_newest(output_dir: Path) -> None:
    early = freeze(checkpoint_unit(output_dir / "checkpoint-20", "run", 20, {})).created
    os.utime(output_dir / "checkpoint-20/optimizer.bin", (2e9, 2e9))
    late = freeze(checkpoint_unit(output_dir / "checkpoint-20", "run", 20, {})).created
    assert early < late == "2033-05-18T03:33:20+00:00"


def test_what_vanishes_while_a_folder_is_listed_is_left_out(tmp_path: Path) -> None:
    for name in ("a/1.bin", "b/2.bin", "c/3.bin", ".spool/checkpoint-8/4.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert list_all_files(tmp_path) == ["a/1.bin", "b/2.bin", "c/3.bin"]
    listing = walk(tmp_path, tmp_path)
    first = next(listing)
    for folder in set("abc") - {first[0]}:
        shutil.rmtree(tmp_path / folder)  # as an upload that ends does with its links
    assert list(listing) == []
