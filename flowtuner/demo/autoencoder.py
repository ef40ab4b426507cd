"""Teaches the tiny model's autoencoder to see coloured shapes, before anything is trained on them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowtuner import durable
from flowtuner.demo.shapes import draw_many

if TYPE_CHECKING:
    import torch

PICTURES = 720
STEPS = 400
WARMUP = 20
BATCH = 8
LEARNING_RATE = 2e-3
LATENT_NOISE = 0.1
LATENT_PULL = 1e-3
FOREGROUND_WEIGHT = 4.0


def train_autoencoder(model_dir: Path, seed: int, steps: int = STEPS) -> None:
    """Trains the autoencoder of a model folder and notes there how its latents are to be scaled."""
    import torch
    from diffusers import AutoencoderKL

    pictures = draw_batch(seed)
    vae = AutoencoderKL.from_pretrained(model_dir / "vae")
    _fit(vae, pictures, torch.Generator().manual_seed(seed), steps)
    vae.eval()
    with torch.no_grad():
        latents = torch.cat([vae.encode(part).latent_dist.mean for part in pictures.chunk(12)])
    # Diffusion mixes in noise of deviation one: latents of another size would be drowned by it, or hide it.
    vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 6))
    vae.to(memory_format=torch.contiguous_format).save_pretrained(model_dir / "vae")


def soften_schedule(model_dir: Path) -> None:
    """Gives the model folder the noise schedule of small pictures, which drown in that of large ones."""
    path = model_dir / "scheduler" / "scheduler_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    durable.write_json(path, settings | {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})


def draw_batch(seed: int) -> torch.Tensor:
    """Pictures to learn from, in [-1, 1]."""
    import torch

    # Pictures of their own: the data set's seed is the run's, this one's is another.
    drawn = np.stack([pixels for _, pixels in draw_many(PICTURES, seed + 1_000_003)])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1


def _fit(vae: Any, pictures: torch.Tensor, generator: torch.Generator, steps: int) -> None:
    import torch

    with torch.no_grad():
        vae.decoder.conv_out.bias.copy_(pictures.mean((0, 2, 3)))  # starts from grey instead of learning it
    vae.to(memory_format=torch.channels_last).train()
    parameters = list(vae.parameters())
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, (0.9, 0.99), weight_decay=0.0, fused=True)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * _rate(step, steps)
        rows = torch.randint(len(pictures), (BATCH,), generator=generator)
        _loss(vae, pictures[rows].contiguous(memory_format=torch.channels_last), generator).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _loss(vae: Any, pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    import torch

    latents = vae.encode(pictures).latent_dist.mean
    noise = torch.randn(latents.shape, generator=generator)
    error = vae.decode(latents + LATENT_NOISE * noise).sample - pictures
    # Most of a picture is black: without more weight on the rest, black alone is learned first.
    weight = 1 + FOREGROUND_WEIGHT * (pictures.amax(1, keepdim=True) > -0.5)
    loss: torch.Tensor = (weight * (error.abs() + error.square())).mean() + LATENT_PULL * latents.square().mean()
    return loss


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / WARMUP) * (0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)
