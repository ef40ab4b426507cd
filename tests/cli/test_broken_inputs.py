"""What is wrong is said before anything is started: exit code 2, every fault named, no traceback."""

import json
import shutil
from pathlib import Path

import pytest

from flowtuner.cli.main import main

OPTIONS = {
    "unknown option": ({"sedd": 1}, "sedd: is no known option", "seed"),
    "unknown family": ({"model_family": "pixelart"}, "model_family", "pixart_sigma"),
    "a family without an engine": ({"model_family": "hidream"}, "model_family", "does not support it yet"),
    "no family": ({"model_family": None}, "model_family", "is required"),
    "no type": ({"model_type": None}, "model_type", "is required"),
    "no output": ({"output_dir": None}, "output_dir", "is required"),
    "no data": ({"data_backend_config": None}, "data_backend_config", "is required"),
    "batch of none": ({"train_batch_size": 0}, "train_batch_size", "from 1"),
    "batch that is a word": ({"train_batch_size": "many"}, "train_batch_size", "many"),
    "rate of nothing": ({"learning_rate": 0}, "learning_rate", "above 0"),
    "rate below nothing": ({"learning_rate": -1e-4}, "learning_rate", "above 0"),
    "rate that is no number": ({"learning_rate": "nan"}, "learning_rate", ""),
    "steps and epochs": ({"max_train_steps": 5, "num_train_epochs": 5}, "max_train_steps", "num_train_epochs"),
    "neither steps nor epochs": ({"max_train_steps": 0, "num_train_epochs": 0}, "max_train_steps", "num_train_epochs"),
    "rank of none": ({"model_type": "lora", "lora_rank": 0}, "lora_rank", "from 1"),
    "unknown optimizer": ({"optimizer": "adamx"}, "optimizer", "adamx"),
    "unknown schedule": ({"lr_scheduler": "cosin"}, "lr_scheduler", "cosine"),
    "longer warmup than run": ({"lr_warmup_steps": 60}, "lr_warmup_steps", "60"),
    "unknown precision": ({"mixed_precision": "bf17"}, "mixed_precision", "bf16"),
    "missing variable": ({"output_dir": "{env:NOT_SET_ANYWHERE}"}, "output_dir", "NOT_SET_ANYWHERE"),
    "model folder that is not there": ({"pretrained_model_name_or_path": "/no/model"}, "pretrained_model", "/no/model"),
    "data that is not there": ({"data_backend_config": "nowhere.json"}, "data_backend_config", "nowhere.json"),
    "checkpoint that is not there": ({"resume_from_checkpoint": "checkpoint-9"}, "resume_from_checkpoint", "latest"),
    "unknown destination": ({"publishing_config": {"provider": "foldr"}}, "foldr", "folder"),
    "destination without a name": ({"publishing_config": [{"path": "/tmp"}]}, "publishing", "provider"),
    "destination without a path": ({"publishing_config": [{"provider": "folder"}]}, "path", "is required"),
    "destination that is not there": (
        {"publishing_config": [{"provider": "folder", "path": "/no/such/share"}]}, "/no/such/share", "is not a folder",
    ),
    "destination with unknown key": (
        {"publishing_config": [{"provider": "folder", "path": "/tmp", "pth": 1}]}, "pth", "path",
    ),
    "destinations that are no JSON": ({"publishing_config": "{provider: folder}"}, "publishing_config", "JSON"),
}  # fmt: skip

DATASETS = {
    "unknown key": ({"repeat": 1}, "repeat", "repeats"),
    "unknown strategy": ({"caption_strategy": "filenames"}, "caption_strategy", "filename"),
    "negative repeats": ({"repeats": -1}, "repeats", "-1"),
    "negative probability": ({"probability": -0.5}, "probability", "-0.5"),
    "folder that is not there": ({"instance_data_dir": "/no/such/pictures"}, "instance_data_dir", "/no/such/pictures"),
    "unknown type": ({"type": "locl"}, "type", "local"),
    "unknown crop": ({"crop": True, "crop_aspect": "sqare"}, "crop_aspect", "square"),
    "no resolution": ({"resolution": 0}, "resolution", ""),
    "unknown unit": ({"resolution_type": "pixels"}, "resolution_type", "pixel"),
}

FILES = {
    "configuration cut in the middle": ("config.json", '{"seed": 1,\n  "train_', "line 2"),
    "configuration that is a list": ("config.json", "[1, 2]", "config.json"),
    "empty configuration": ("config.json", "", "config.json"),
    "dataloader cut in the middle": ("multidatabackend.json", '[\n{"id": "pictures",', "line 2"),
    "dataloader that is an object": ("multidatabackend.json", "5", "multidatabackend.json"),
    "dataloader without pictures": ("multidatabackend.json", "[]", "data"),
}


def refuse(config: dict, tmp_path: Path, capsys, home: Path) -> str:
    """Runs `flowtuner train` on a configuration that must not start; answers with what was said."""
    path = tmp_path / "config.json"
    if config:
        path.write_text(json.dumps(config))
    assert main(["train", "--config", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert "Nothing was started." in err
    assert not (home / "server").exists()
    return err


@pytest.mark.parametrize(("change", "named", "advice"), OPTIONS.values(), ids=OPTIONS)
def test_broken_options(change, named, advice, tiny_run, tmp_path, capsys, home):
    said = refuse({**tiny_run, **change}, tmp_path, capsys, home)
    assert named in said
    assert advice in said


@pytest.mark.parametrize(("change", "named", "advice"), DATASETS.values(), ids=DATASETS)
def test_broken_datasets(change, named, advice, tiny_run, tmp_path, capsys, home):
    dataloader = Path(tiny_run["data_backend_config"])
    first, *others = json.loads(dataloader.read_text())
    dataloader.write_text(json.dumps([first | change, *others]))
    said = refuse(tiny_run, tmp_path, capsys, home)
    assert named in said
    assert advice in said


@pytest.mark.parametrize(("name", "text", "named"), FILES.values(), ids=FILES)
def test_broken_files(name, text, named, tiny_run, tmp_path, capsys, home):
    (tmp_path / "config.json").write_text(json.dumps(tiny_run))
    (tmp_path / name).write_text(text)
    assert named in refuse({}, tmp_path, capsys, home)


def test_a_model_folder_with_a_part_missing(tiny_run, tmp_path, capsys, home):
    broken = shutil.copytree(tiny_run["pretrained_model_name_or_path"], tmp_path / "broken")
    shutil.rmtree(broken / "vae")
    assert "vae" in refuse({**tiny_run, "pretrained_model_name_or_path": str(broken)}, tmp_path, capsys, home)


def test_an_output_folder_that_is_a_file(tiny_run, tmp_path, capsys, home):
    (tmp_path / "taken").write_text("")
    assert "is a file" in refuse({**tiny_run, "output_dir": str(tmp_path / "taken")}, tmp_path, capsys, home)


def test_a_checkpoint_that_is_not_whole(tiny_run, tmp_path, capsys, home):
    folder = tmp_path / "output" / "checkpoint-2"
    folder.mkdir(parents=True)
    (folder / "optimizer.bin").write_bytes(b"half")
    said = refuse({**tiny_run, "resume_from_checkpoint": "checkpoint-2"}, tmp_path, capsys, home)
    assert "is not whole" in said


def test_a_checkpoint_that_nobody_has_published(tiny_run, tmp_path, capsys, home):
    (tmp_path / "share").mkdir()
    uri = f"{(tmp_path / 'share').as_uri()}/run/checkpoint-2"
    said = refuse({**tiny_run, "resume_from_checkpoint": uri}, tmp_path, capsys, home)
    assert "there is no checkpoint-2 of run" in said


def test_an_address_that_no_destination_has(tiny_run, tmp_path, capsys, home):
    said = refuse({**tiny_run, "resume_from_checkpoint": "gopher://somewhere/run"}, tmp_path, capsys, home)
    assert "s3://bucket/folder/run" in said


def test_a_fresh_start_over_old_checkpoints(tiny_run, tmp_path, capsys, home):
    (tmp_path / "output" / "checkpoint-2").mkdir(parents=True)
    said = refuse({**tiny_run, "resume_from_checkpoint": ""}, tmp_path, capsys, home)
    assert "already holds checkpoint-2" in said


def test_all_mistakes_are_told_at_once(tiny_run, tmp_path, capsys, home):
    said = refuse({**tiny_run, "sedd": 1, "train_batch_size": 0, "optimizer": "adamx"}, tmp_path, capsys, home)
    assert said.count("error: ") == 3


def test_publishing_a_folder_that_is_not_there(tmp_path, capsys):
    assert main(["publish", str(tmp_path / "nothing"), "--to", str(tmp_path)]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_publishing_to_a_folder_that_is_not_there(tmp_path, capsys, home):
    (tmp_path / "output").mkdir()
    assert main(["publish", str(tmp_path / "output"), "--to", str(tmp_path / "mnt" / "share")]) == 2
    assert "share is not a folder" in capsys.readouterr().err
    assert not (home / "server").exists()
