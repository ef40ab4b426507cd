"""What the proofs of learning share: a base that knows coloured shapes, runs without a process, and their score."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from flowtuner.demo import prepare
from flowtuner.demo.judge import score
from flowtuner.demo.run import EXAMPLE, PLACE
from flowtuner.demo.scores import Score
from flowtuner.demo.shapes import EDGE, RADIUS_PX, SHIFT_PX, Figure, draw, every_figure
from flowtuner.engine.run import RunSpec
from flowtuner.engine.session import Session
from flowtuner.options import load

CPU = torch.device("cpu")
NEW_WORD, MEANING = "a zorp", Figure("magenta", "square")
FIRST_SEED = 101
SIZES = {"resolution": 32, "resolution_type": "pixel"}
PICTURES = {"caption_strategy": "textfile", "crop": True, "crop_style": "center", "crop_aspect": "square"} | SIZES
PLAIN_RUN = {
    "aspect_bucket_alignment": 8,
    "num_train_epochs": 0,
    "mixed_precision": "no",
    "gradient_checkpointing": False,
    "optimizer": "torch-adamw",
    "optimizer_config": "weight_decay=0.0",
    "max_grad_norm": 1.0,
    "grad_clip_method": "norm",
    "seed": 0,
    "validation_disable": True,
}


def open_session(values: dict[str, Any], **where: Any) -> Session:
    """A run with full caches and a loaded model."""
    loaded = load(values=values, **({"environ": {}} | where))
    spec = RunSpec("teaching", loaded, Path(loaded.config.output_dir))
    session = Session(spec, lambda type, data: None, threading.Event())
    session.cache_text()
    session.cache_latents()
    session.prepare(None)
    return session


def teach_base(folder: Path) -> Path:
    """The demo's model, trained from scratch by the demo's own configuration; its released pipeline."""
    prepare.prepare(folder, seed=0)
    session = open_session({"publishing_config": None}, config_file=EXAMPLE, environ={PLACE: str(folder)})
    session.train(session.config.max_train_steps)
    session.save_release()
    session.close()
    return folder / "run" / "pipeline"


def write_new_word(folder: Path) -> Path:
    """Sixteen magenta squares under a word that means nothing yet."""
    folder.mkdir()
    random = np.random.default_rng(3)
    for number in range(16):
        x, y = EDGE / 2 + random.uniform(-SHIFT_PX, SHIFT_PX, 2)
        Image.fromarray(draw(MEANING, x, y, random.uniform(*RADIUS_PX))).save(folder / f"zorp_{number}.png")
        (folder / f"zorp_{number}.txt").write_text(f"{NEW_WORD}\n")
    return folder


def teach_word(
    root: Path, base: Path, old: Path | None, steps: int, *, is_regularisation: bool = False, **options: Any
) -> tuple[Score, Score]:
    """Trains an adapter on the new word, with the old pictures in turn if they are given; how often both are right."""
    entries = [PICTURES | {"id": "zorp", "instance_data_dir": str(write_new_word(root / "zorp"))}]
    if old:
        entries.append(
            PICTURES | {"id": "old", "instance_data_dir": str(old), "is_regularisation_data": is_regularisation}
        )
    (root / "data.json").write_text(json.dumps(entries))
    session = open_session(
        PLAIN_RUN
        | {
            "model_family": "pixart_sigma",
            "model_type": "lora",
            "pretrained_model_name_or_path": str(base),
            "data_backend_config": str(root / "data.json"),
            "output_dir": str(root / "run"),
            "max_train_steps": steps,
            "train_batch_size": 16,
            "caption_dropout_probability": 0.1,
            "lr_scheduler": "constant",
            "lora_dropout": 0.0,
            "snr_gamma": 1.0,
        }
        | options
    )
    session.train(steps)
    return score_prompts(session)


def score_prompts(session: Session) -> tuple[Score, Score]:
    """How often the new word shows what it means, and the old prompts what they always meant."""
    wanted = [figure for figure in every_figure() for _ in range(2)]
    prompts = [NEW_WORD] * 16 + [figure.caption for figure in wanted]
    encoder = session._family.load_text_encoder(torch.float32, CPU)
    rows = encoder.encode([*prompts, ""])
    pictures = draw_rows(session, rows[:-1], rows[-1], guidance=3.0)
    session.close()
    return score(pictures[:16], [MEANING] * 16), score(pictures[16:], wanted)


def draw_rows(session: Session, rows: Sequence[Any], negative: Any, guidance: float) -> list[Any]:
    """One picture per row, by the weights that validation would show."""
    trainer = session._trainer
    assert trainer is not None
    trainer.model.eval()
    with torch.no_grad(), trainer.shown_weights():
        images = session._family.render_batch(
            trainer.model,
            session._family.load_vae(torch.float32, CPU),
            rows,
            negative,
            width=EDGE,
            height=EDGE,
            steps=14,
            guidance=guidance,
            seeds=range(FIRST_SEED, FIRST_SEED + len(rows)),
        )
    trainer.model.train()
    return [np.asarray(image.convert("RGB")) for image in images]
