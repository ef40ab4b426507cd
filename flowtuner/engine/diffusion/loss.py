"""The training loss of one micro batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from flowtuner.engine.diffusion.schedule import Schedule
    from flowtuner.engine.family import Family, Rows
    from flowtuner.options import TrainingConfig

HUBER_C = 0.1
"""Where the robust losses turn from squared to linear."""


def compute_loss(
    family: Family,
    model: torch.nn.Module,
    schedule: Schedule,
    latents: torch.Tensor,
    text: Rows,
    generator: torch.Generator,
    config: TrainingConfig,
) -> torch.Tensor:
    """Noises the latents, asks the model and compares, in float32; all chance comes from the generator."""
    device = latents.device
    clean = latents.float()
    noise = torch.randn(latents.shape, generator=generator, device=generator.device).to(device)
    timesteps = schedule.sample_timesteps(len(latents), generator).to(device)
    noisy = schedule.add_noise(clean, noise, timesteps).to(latents.dtype)
    prediction = family.predict(model, noisy, timesteps, text).float()
    target = schedule.target(clean, noise, timesteps)
    if not config.snr_gamma:
        return measure(config.loss_type, prediction, target).mean()
    per_sample = measure(config.loss_type, prediction, target).flatten(1).mean(1)
    return (per_sample * schedule.snr_weights(timesteps, config.snr_gamma)).mean()


def measure(loss_type: str, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The loss of every element: `l2`, or the pseudo-Huber losses that outliers pull less."""
    return MEASURES[loss_type](prediction, target)


def _squared(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(prediction, target, reduction="none")


def _huber(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return HUBER_C * _smooth_l1(prediction, target)


def _smooth_l1(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return 2 * (((prediction - target) ** 2 + HUBER_C**2).sqrt() - HUBER_C)


MEASURES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "l2": _squared,
    "huber": _huber,
    "smooth_l1": _smooth_l1,
}
