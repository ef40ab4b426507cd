"""Makes the demo's model and data set; a process of its own, so that the demo itself never loads torch."""

from __future__ import annotations

import sys
from pathlib import Path

from flowtuner.demo.autoencoder import STEPS, soften_schedule, train_autoencoder
from flowtuner.demo.shapes import EDGE, write_dataset
from flowtuner.engine.families import open_family

FAMILY = "pixart_sigma"
PICTURES = 360
VAE_CHANNELS = (16, 32, 32)
PIXELS_PER_LATENT = 4


def prepare(folder: Path, seed: int) -> None:
    """Writes `model/` and `pictures/` below `folder`; the same seed gives the same model and pictures."""
    write_dataset(folder / "pictures", PICTURES, seed)
    build_model(folder / "model", seed)


def build_model(target: Path, seed: int, steps: int = STEPS) -> None:
    """Builds an untrained model whose autoencoder knows the pictures' world after so many steps."""
    open_family(FAMILY).tiny(target, seed=seed, vae_channels=VAE_CHANNELS, sample_size=EDGE // PIXELS_PER_LATENT)
    soften_schedule(target)
    train_autoencoder(target, seed, steps)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), int(sys.argv[2]))
