"""The training loss of one micro batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from flowtuner.engine.ranks import Share

if TYPE_CHECKING:
    from flowtuner.engine.diffusion.schedule import NoiseSchedule
    from flowtuner.engine.family import Family, Rows
    from flowtuner.options import TrainingConfig


def compute_loss(
    family: Family,
    model: torch.nn.Module,
    schedule: NoiseSchedule,
    latents: torch.Tensor,
    text: Rows,
    generator: torch.Generator,
    config: TrainingConfig,
    untrained: Callable[[], AbstractContextManager[None]] | None = None,
    share: Share | None = None,
) -> torch.Tensor:
    """Noises the latents, asks the model and compares, in float32; all chance comes from the generator.

    With `untrained`, which makes the model answer as before training, that answer is the target. The latents may be
    one process's `share` of a micro batch: noise and timesteps are those of its places.
    """
    device = latents.device
    clean = latents.float()
    share = share or Share.whole(len(latents))
    each = latents.shape[1:]
    noise = share.of(lambda count: torch.randn((count, *each), generator=generator, device=generator.device)).to(device)
    timesteps = share.of(lambda count: schedule.sample_timesteps(count, generator)).to(device)
    noisy = schedule.add_noise(clean, noise, timesteps).to(latents.dtype)
    inputs = text | share.of_rows(family.draw_inputs(share.total, generator))
    if untrained is None:
        target = schedule.target(clean, noise, timesteps)
    else:
        with torch.no_grad(), untrained():
            target = family.predict(model, noisy, timesteps, inputs).float()
    prediction = family.predict(model, noisy, timesteps, inputs).float()
    error = measure(config, prediction, target)
    if not config.snr_gamma:
        return error.mean()
    per_sample = error.flatten(1).mean(1)
    return (per_sample * schedule.snr_weights(timesteps, config.snr_gamma)).mean()


def measure(config: TrainingConfig, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The loss of every element: `l2`, or a pseudo-Huber one, which outliers pull less."""
    return MEASURES[config.loss_type](prediction, target, config.huber_c)


def _squared(prediction: torch.Tensor, target: torch.Tensor, bend: float) -> torch.Tensor:
    return functional.mse_loss(prediction, target, reduction="none")


def _huber(prediction: torch.Tensor, target: torch.Tensor, bend: float) -> torch.Tensor:
    return bend * _smooth_l1(prediction, target, bend)


def _smooth_l1(prediction: torch.Tensor, target: torch.Tensor, bend: float) -> torch.Tensor:
    return 2 * (((prediction - target) ** 2 + bend**2).sqrt() - bend)


MEASURES: dict[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "l2": _squared,
    "huber": _huber,
    "smooth_l1": _smooth_l1,
}
