"""A run can be run again from what it left beside its log, and gives the same bytes; what differs is named."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from flowtuner.cli.reproduction import compare
from flowtuner.engine.capsule import Capsule, find_differences, read_capsule
from flowtuner.errors import CheckpointError
from flowtuner.options import load

COMMAND = [sys.executable, "-m", "flowtuner.cli"]


def run(*arguments):
    words = [*COMMAND, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_is_reproduced_and_changed_data_is_noticed_before_training(config_file, tiny_run, tmp_path, pictures):
    output = tmp_path / "output"
    options = json.loads(config_file.read_text())
    first = run("train", "--config", config_file, "--seed=-1", "--lora_rank=3", "--model_type=lora")
    assert first.returncode == 0, first.stderr
    again = run("reproduce", output)
    assert again.returncode == 0, again.stderr
    assert "reproduced: 1 of 1 files of weights have the same bytes" in again.stderr
    assert read_capsule(tmp_path / "output-reproduced").release == read_capsule(output).release

    copy = tmp_path / "pictures"
    entries = json.loads(Path(options["data_backend_config"]).read_text())
    assert [entry["instance_data_dir"] for entry in entries if "instance_data_dir" in entry] == [str(pictures)]
    copy.mkdir()
    for picture in pictures.glob("*.png"):
        Image.open(picture).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(copy / picture.name)
    capsule = json.loads((output / "logs" / "capsule.json").read_text())
    capsule["datasets"][0]["instance_data_dir"] = str(copy)
    (tmp_path / "capsule.json").write_text(json.dumps(capsule))
    refused = run("reproduce", tmp_path / "capsule.json", "--into", tmp_path / "third")
    assert refused.returncode == 2
    assert "has other pictures or captions than it had" in refused.stderr


def test_a_folder_without_a_capsule_is_refused(tmp_path):
    done = run("reproduce", tmp_path)
    assert done.returncode == 1
    assert "capsule.json is not there: give the output folder of a run" in done.stderr


def test_a_capsule_holds_no_secret_and_comes_back_whole(tmp_path, tiny_run):
    secret = [{"provider": "s3", "bucket": "b", "secret_key": "hunter2"}]
    loaded = load(values=tiny_run | {"publishing_config": secret}, environ={})
    capsule = Capsule.of(loaded, seed=1, data={}, model={"vae": "a"}, device="cpu", threads=1)
    capsule.save(tmp_path)
    assert read_capsule(tmp_path) == capsule
    assert "hunter2" not in (tmp_path / "logs" / "capsule.json").read_text()


def test_what_is_not_as_it_was_is_named(tmp_path, tiny_run):
    old = Capsule.of(load(values=tiny_run, environ={}), seed=1, data={}, model={}, device="cpu", threads=1)
    new = replace(old, packages={**old.packages, "torch": "0.1"}, threads=2)
    assert list(find_differences(old, old)) == []
    assert list(find_differences(old, new)) == [f"torch was {old.packages['torch']}, now 0.1", "threads was 1, now 2"]


def test_files_that_came_or_went_are_other_bytes(tiny_run):
    old = Capsule.of(load(values=tiny_run, environ={}), seed=1, data={}, model={}, device="cpu", threads=1)
    verdict = compare(replace(old, release={"a": "1", "b": "2"}), replace(old, release={"a": "1", "c": "2"}))
    assert (verdict.same, verdict.other) == (("a",), ("b", "c"))
    assert not compare(old, old).is_same


def test_another_version_is_refused(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "capsule.json").write_text('{"version": 99}')
    with pytest.raises(CheckpointError, match="version 99"):
        read_capsule(tmp_path)
