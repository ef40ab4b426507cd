"""What many tests need: a tiny model, a few captioned pictures, and the options that train one on the other."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two busy threads on a loaded machine are twenty times slower
os.environ.setdefault("HF_HUB_OFFLINE", "1")

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A PixArt Sigma of about a million parameters, built offline."""
    from flowtuner.engine.families import open_family

    return open_family("pixart_sigma").tiny(tmp_path_factory.mktemp("models") / "pixart")


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory) -> Path:
    """A Flux of two million parameters, built offline."""
    from flowtuner.engine.families import open_family

    return open_family("flux").tiny(tmp_path_factory.mktemp("models") / "flux")


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Sixteen captioned 32-pixel pictures."""
    return draw_pictures(tmp_path / "pictures", 16)


@pytest.fixture
def tiny_run(tmp_path, tiny_model, pictures) -> dict:
    """The options of a run that takes a second: change what your test is about."""
    return tiny_options(tmp_path, tiny_model, pictures)


def draw_pictures(folder: Path, count: int) -> Path:
    """Draws captioned pictures; the file name is the caption."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        colour, shape = COLOURS[number % 4], SHAPES[number // 4 % 2]
        picture = Image.new("RGB", (32, 32))
        box = (4 + number % 5, 4, 26, 26 - number % 3)
        getattr(ImageDraw.Draw(picture), "ellipse" if shape == "circle" else "rectangle")(box, fill=colour)
        picture.save(folder / f"a_{colour}_{shape}_{number}.png")
    return folder


def tiny_options(root: Path, model: Path, pictures: Path, **values) -> dict:
    """Options for the tiny model; cosine schedule, batch 2, no validation, everything in fp32."""
    datasets = [
        {
            "id": "pictures",
            "type": "local",
            "instance_data_dir": str(pictures),
            "caption_strategy": "filename",
            "resolution": 32,
            "resolution_type": "pixel",
            "cache_dir_vae": str(root / "cache" / "vae"),
        },
        {
            "id": "texts",
            "type": "local",
            "dataset_type": "text_embeds",
            "default": True,
            "cache_dir": str(root / "cache" / "text"),
        },
    ]
    dataloader = root / "multidatabackend.json"
    dataloader.write_text(json.dumps(datasets))
    return {
        "model_family": "pixart_sigma",
        "model_type": "full",
        "pretrained_model_name_or_path": str(model),
        "output_dir": str(root / "output"),
        "data_backend_config": str(dataloader),
        "aspect_bucket_alignment": 8,
        "train_batch_size": 2,
        "max_train_steps": 6,
        "num_train_epochs": 0,
        "learning_rate": 1e-3,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 2,
        "optimizer": "torch-adamw",
        "mixed_precision": "no",
        "gradient_checkpointing": False,
        "checkpoint_step_interval": 2,
        "seed": 1337,
        "validation_disable": True,
        "ephemeral": "no",
    } | values


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub of its own for the test, where Alice is signed in."""
    from tests.blocks.conftest import leave_sign_in_alone
    from tests.fakes.hub.accounts import ALICE
    from tests.fakes.hub.server import serve

    leave_sign_in_alone(monkeypatch, tmp_path)
    with serve(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", ALICE)
        yield hub
