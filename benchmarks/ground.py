"""The common ground of all rows: one tiny model, one set of pictures, one configuration."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from flowtuner.demo.shapes import draw_many
from flowtuner.engine.run import RunSpec
from flowtuner.options import LoadedConfig, load

EDGE = 64
PICTURES = 96


def build_ground(folder: Path) -> Path:
    """Makes the models and the pictures below `folder`; the references are the pictures in grey."""
    from PIL import Image

    from flowtuner.engine.families import open_family

    open_family("pixart_sigma").tiny(folder / "model", sample_size=16)
    open_family("flux").tiny(folder / "kontext", kontext=True)
    write_pictures(folder / "pictures", PICTURES)
    (folder / "references").mkdir()
    for path in (folder / "pictures").glob("*.png"):
        with Image.open(path) as picture:
            picture.convert("L").convert("RGB").save(folder / "references" / path.name)
    return folder


def write_pictures(folder: Path, count: int, edge: int = EDGE) -> None:
    """Writes coloured shapes with captions of different lengths."""
    from PIL import Image

    folder.mkdir(parents=True)
    tails = ("", " on a black background", " in the picture", " over a dark scene")
    for number, (figure, pixels) in enumerate(draw_many(count, seed=0)):
        Image.fromarray(pixels).resize((edge, edge)).save(folder / f"{number:05d}.png")
        (folder / f"{number:05d}.txt").write_text(figure.caption + tails[number % len(tails)])


def configure(ground: Path, name: str, *, pictures: Path | None = None, **options: Any) -> LoadedConfig:
    """A configuration on this ground; each name has its own output folder, the caches are shared."""
    entry = {
        "id": "shapes",
        "type": "local",
        "instance_data_dir": str(pictures or ground / "pictures"),
        "caption_strategy": "textfile",
        "crop": True,
        "crop_style": "center",
        "crop_aspect": "square",
    }
    entries = [entry]
    if options.get("model_flavour") == "kontext":
        entry["conditioning_data"] = ["references"]
        reference = {"dataset_type": "conditioning", "conditioning_type": "reference_strict"}
        entries.append(reference | {"id": "references", "instance_data_dir": str(ground / "references")})
    (ground / f"{name}.json").write_text(json.dumps(entries))
    values = {
        "model_family": "pixart_sigma",
        "model_type": "full",
        "pretrained_model_name_or_path": str(ground / "model"),
        "data_backend_config": str(ground / f"{name}.json"),
        "output_dir": str(ground / "runs" / name),
        "cache_dir": str(ground / "cache"),
        "aspect_bucket_alignment": 8,
        "resolution": EDGE,
        "resolution_type": "pixel",
        "train_batch_size": 8,
        "max_train_steps": 1_000_000,
        "checkpoint_step_interval": 1_000_000,
        "learning_rate": 1e-4,
        "lr_scheduler": "constant",
        "optimizer": "torch-adamw",
        "mixed_precision": "no",
        "gradient_checkpointing": False,
        "caption_dropout_probability": 0.0,
        "lora_dropout": 0.0,
        "lora_rank": 8,
        "max_grad_norm": 1.0,
        "grad_clip_method": "norm",
        "validation_disable": True,
        "seed": 1,
        "torch_num_threads": 1,
    }
    return load(values=values | options, environ={})


def open_session(loaded: LoadedConfig, *, prepares: bool = True) -> Any:
    """An engine's session in this process, with its caches filled and its model loaded."""
    from flowtuner.engine.session import Session

    output = Path(loaded.config.output_dir)
    session = Session(RunSpec("bench", loaded, output), lambda type, data: None, threading.Event())
    session.cache_text()
    session.cache_latents()
    if prepares:
        session.prepare(None)
    return session
