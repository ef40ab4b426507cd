"""Pictures, models, disks and checkpoints that are wrong: said clearly, at once, and nothing is started or lost."""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from flowtuner.cli.main import main
from flowtuner.engine import checkpoints

LONGEST_S = 10


class Mess:
    """A run that would work, ready to be broken in one place."""

    def __init__(self, root: Path, options: dict, monkeypatch):
        self.root = root
        self.options = options
        self.monkeypatch = monkeypatch
        self.output = Path(options["output_dir"])
        self.datasets = json.loads(Path(options["data_backend_config"]).read_text())
        self.pictures = Path(self.datasets[0]["instance_data_dir"])
        self.model = root / "model"
        shutil.copytree(options["pretrained_model_name_or_path"], self.model)
        options["pretrained_model_name_or_path"] = str(self.model)

    def set(self, **values):
        self.options |= values

    def dataset(self, **values):
        self.datasets[0] |= values

    def checkpoint(self, step=4, **state):
        saved = {
            "global_step": step,
            "micro_batches": step,
            "epoch": 0,
            "seed": 1,
            "data_set": "",
            "identity": {},
        } | state
        folder = checkpoints.folder_of(self.output, step)
        checkpoints.write_checkpoint(
            folder, checkpoints.SavedState(**saved), lambda part: (part / "weights.bin").write_text("x"), {}
        )()
        return folder

    def command(self) -> list[str]:
        Path(self.options["data_backend_config"]).write_text(json.dumps(self.datasets))
        config = self.root / "config.json"
        config.write_text(json.dumps(self.options))
        return ["train", "--config", str(config)]


def break_all_pictures(mess: Mess) -> None:
    for picture in mess.pictures.iterdir():
        picture.write_bytes(b"\x89PNG but not really")


def remove_pictures(mess: Mess) -> None:
    for picture in mess.pictures.iterdir():
        picture.unlink()


def truncate_weights(mess: Mess) -> None:
    path = next((mess.model / "transformer").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:1000])


def leave_no_disk(mess: Mess) -> None:
    mess.monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=1 << 40, used=1 << 40, free=4096))


def damage_checkpoint(mess: Mess) -> None:
    (mess.checkpoint() / "weights.bin").unlink()
    mess.set(resume_from_checkpoint="checkpoint-4")


CASES = {
    # what the engine cannot do
    "optimizer of a missing package": (lambda m: m.set(optimizer="sdnq-adamw"), ["optimizer", "sdnq"]),
    "family that is not built": (lambda m: m.set(model_family="hidream"), ["hidream", "pixart_sigma"]),
    "precision that is not built": (lambda m: m.set(mixed_precision="fp8"), ["mixed_precision"]),
    "quantised weights that are to be trained": (
        lambda m: m.set(model_type="full", base_model_precision="int8-quanto"),
        ["base_model_precision", "model_type"],
    ),
    "format that is not built": (
        lambda m: m.set(model_type="lora", base_model_precision="int8-sdnq"),
        ["base_model_precision", "int8-quanto"],
    ),
    "adapter that is not built": (
        lambda m: m.set(model_type="lora", lora_init_type="loftq"),
        ["lora_init_type", "pissa"],
    ),
    "algorithm that is not known": (
        lambda m: m.set(
            model_type="lora",
            lora_type="lycoris",
            lycoris_config={"algo": "lokrr", "multiplier": 1.0, "linear_alpha": 1, "full_matrix": True},
        ),
        ["lycoris_config", "lokr"],
    ),
    # pictures
    "no pictures": (remove_pictures, ["no pictures"]),
    "only broken pictures": (break_all_pictures, ["none of the 16 pictures"]),
    "no captions": (lambda m: m.dataset(caption_strategy="textfile"), [".txt"]),
    "fewer pictures than a batch": (lambda m: m.set(train_batch_size=64), ["repeats"]),
    "all pictures too small": (lambda m: m.dataset(minimum_image_size=2000), ["minimum_image_size"]),
    # model
    "missing model": (lambda m: m.set(pretrained_model_name_or_path="/nowhere/model"), ["/nowhere/model"]),
    "folder that is no model": (
        lambda m: m.set(pretrained_model_name_or_path=str(m.pictures)),
        ["model_index.json"],
    ),
    "model without weights": (lambda m: shutil.rmtree(m.model / "vae"), ["vae"]),
    "weights cut short": (truncate_weights, ["transformer"]),
    "model of another family": (
        lambda m: (m.model / "model_index.json").write_text('{"_class_name": "FluxPipeline"}'),
        ["FluxPipeline", "PixArtSigmaPipeline"],
    ),
    # output, disk, checkpoints
    "output that is a file": (lambda m: m.set(output_dir=str(next(m.pictures.iterdir()))), ["output_dir"]),
    "full disk": (leave_no_disk, ["free"]),
    "missing checkpoint": (lambda m: m.set(resume_from_checkpoint="checkpoint-77"), ["checkpoint-77"]),
    "damaged checkpoint": (damage_checkpoint, ["checkpoint-4", "weights.bin"]),
    "checkpoint of another batch size": (
        lambda m: m.checkpoint(identity={"train_batch_size": 9}),
        ["train_batch_size was 9, now 2"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_said_clearly_and_nothing_starts(name, tmp_path, tiny_run, monkeypatch, capsys):
    break_it, expected = CASES[name]
    mess = Mess(tmp_path, tiny_run, monkeypatch)
    monkeypatch.setenv("FLOWTUNER_HOME", str(tmp_path / "home"))
    break_it(mess)
    before = sorted(path for path in mess.pictures.iterdir())
    started = time.monotonic()
    code = main(mess.command())
    said = capsys.readouterr().err
    assert code == 2, said
    assert time.monotonic() - started < LONGEST_S
    assert "Traceback" not in said
    for part in expected:
        assert part in said
    assert sorted(path for path in mess.pictures.iterdir()) == before
    assert not (tmp_path / "home").exists(), "a server was started"


def test_all_mistakes_are_told_at_once(tmp_path, tiny_run, monkeypatch, capsys):
    mess = Mess(tmp_path, tiny_run, monkeypatch)
    mess.set(learning_rate=-1, lr_scheduler="cosin", train_batch_size=0)
    mess.dataset(repeats=-1, caption_strategy="filenames")
    assert main(mess.command()) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in ("learning_rate", "lr_scheduler", "train_batch_size", "repeats", "filenames"))


def test_a_few_broken_pictures_are_left_out_and_named(tmp_path, tiny_run, monkeypatch, capsys):
    mess = Mess(tmp_path, tiny_run, monkeypatch)
    (mess.pictures / "broken.png").write_bytes(b"x")
    Image.new("RGB", (32, 32)).save(mess.pictures / "fine.png")
    command = mess.command()
    assert main(["check", *command[1:]]) == 0
    assert "broken.png" in capsys.readouterr().err
