"""Pairs of pictures that differ in colour alone, and how well a model that learned from them edits new ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from flowtuner.demo.autoencoder import train_autoencoder
from flowtuner.demo.judge import score
from flowtuner.demo.scores import Score
from flowtuner.demo.shapes import COLOURS, EDGE, Figure, Pixels, draw_many
from flowtuner.engine.families import open_family
from tests.demo.teaching import CPU, FIRST_SEED, PICTURES, PLAIN_RUN, SIZES, open_session

PAIRS, TESTED = 360, 36
CONFIGURATION = {
    "model_family": "flux",
    "model_flavour": "kontext",
    "model_type": "full",
    "train_batch_size": 32,
    "learning_rate": 2e-3,
    "lr_scheduler": "constant_with_warmup",
    "lr_warmup_steps": 20,
    "caption_dropout_probability": 0.0,
}


def build_editor(folder: Path) -> Path:
    """An untrained Kontext whose autoencoder knows coloured shapes; with fewer tokens corners are hard to copy."""
    model = open_family("flux").tiny(folder / "model", kontext=True, vae_channels=(16, 32))
    train_autoencoder(model, seed=0)
    return model


def write_pairs(folder: Path) -> Path:
    """A dataloader of shapes and what they look like in another colour; the caption names only that colour."""
    for name in ("before", "after"):
        (folder / name).mkdir(parents=True)
    for number, (before, after, figure) in enumerate(_draw_pairs(PAIRS, seed=0)):
        Image.fromarray(before).save(folder / f"before/{number:03}.png")
        Image.fromarray(after).save(folder / f"after/{number:03}.png")
        (folder / f"after/{number:03}.txt").write_text(_prompt(figure))
    reference = {"dataset_type": "conditioning", "conditioning_type": "reference_strict"} | SIZES
    entries = [
        PICTURES | {"id": "after", "instance_data_dir": str(folder / "after"), "conditioning_data": ["before"]},
        reference | {"id": "before", "instance_data_dir": str(folder / "before")},
    ]
    (folder / "data.json").write_text(json.dumps(entries))
    return folder / "data.json"


def open_editing(root: Path, model: Path, steps: int) -> Any:
    """A run over the pairs."""
    return open_session(
        PLAIN_RUN
        | CONFIGURATION
        | {
            "pretrained_model_name_or_path": str(model),
            "data_backend_config": str(write_pairs(root / "pairs")),
            "output_dir": str(root / "run"),
            "max_train_steps": steps,
        }
    )


def score_edits(session: Any, *, is_blind: bool = False) -> Score:
    """How often new pictures get the colour of the prompt and keep their shape; blind: they see a black one instead."""
    pairs = list(_draw_pairs(TESTED, seed=77))
    family, trainer = session._family, session._trainer
    texts = family.load_text_encoder(torch.float32, CPU).encode([_prompt(figure) for _, _, figure in pairs] + [""])
    vae = family.load_vae(torch.float32, CPU)
    sources = torch.from_numpy(np.stack([before for before, _, _ in pairs])).permute(0, 3, 1, 2).float() / 127.5 - 1
    trainer.model.eval()
    with torch.no_grad(), trainer.shown_weights():
        latents = vae.encode(-torch.ones_like(sources) if is_blind else sources)
        rows = [family.add_references(text, [one]) for text, one in zip(texts[:-1], latents, strict=True)]
        images = family.render_batch(
            trainer.model,
            vae,
            rows,
            texts[-1],
            width=EDGE,
            height=EDGE,
            steps=14,
            guidance=1.0,
            seeds=range(FIRST_SEED, FIRST_SEED + TESTED),
        )
    trainer.model.train()
    pictures = [np.asarray(image.convert("RGB")) for image in images]
    return score(pictures, [figure for _, _, figure in pairs])


def _draw_pairs(count: int, seed: int) -> list[tuple[Pixels, Pixels, Figure]]:
    random = np.random.default_rng(seed)
    pairs = []
    for figure, before in draw_many(count, seed):
        colour = str(random.choice([name for name in COLOURS if name != figure.colour]))
        mask = before.max(axis=2, keepdims=True) / 255
        after = np.rint(mask * np.array(COLOURS[colour])).astype(np.uint8)
        pairs.append((before, after, Figure(colour, figure.shape)))
    return pairs


def _prompt(figure: Figure) -> str:
    return f"a {figure.colour}"
