"""The noise schedule: how much of a picture is left at each timestep, and what the model is asked for there."""

from __future__ import annotations

from typing import Literal, Protocol, Self

import torch

from flowtuner.errors import ModelError


class NoiseSchedule(Protocol):
    """What the loss asks of a schedule; each family chooses its own."""

    prediction: str

    def to(self, device: torch.device) -> Self:
        """Moves what it keeps to the device that asks for it at every step."""

    def sample_timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Timesteps to train at."""

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The latents as the model sees them at the given timesteps."""

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What the model should answer."""

    def snr_weights(self, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
        """Min-SNR loss weights."""


class Schedule:
    """A discrete schedule of signal and noise, from the model's own scheduler configuration."""

    def __init__(self, alphas_cumprod: torch.Tensor, prediction: Literal["epsilon", "v_prediction"]) -> None:
        alphas = alphas_cumprod.detach().double()
        self.prediction: str = prediction
        self.timesteps = len(alphas)
        # One row per timestep: share of the picture, share of the noise, signal-to-noise ratio.
        self._table = torch.stack([alphas.sqrt(), (1 - alphas).sqrt(), alphas / (1 - alphas)], dim=1).float()

    @classmethod
    def from_scheduler(cls, scheduler: object) -> Self:
        """Takes the schedule from a diffusers scheduler."""
        alphas = getattr(scheduler, "alphas_cumprod", None)
        prediction = getattr(getattr(scheduler, "config", None), "prediction_type", None)
        if alphas is None or prediction not in ("epsilon", "v_prediction"):
            raise ModelError(
                f"the scheduler {type(scheduler).__name__} with prediction_type={prediction!r} is not one this family "
                "trains with: it needs alphas_cumprod and epsilon or v_prediction"
            )
        return cls(alphas, prediction)

    def to(self, device: torch.device) -> Self:
        """Moves the table to the device that asks for it at every step."""
        self._table = self._table.to(device)
        return self

    def sample_timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Timesteps, each as likely as any other."""
        return torch.randint(0, self.timesteps, (count,), generator=generator, device=generator.device)

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The latents as the model sees them at the given timesteps."""
        signal, share = self._shares(latents, timesteps)
        return signal * latents + share * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What the model should answer."""
        if self.prediction == "epsilon":
            return noise
        signal, share = self._shares(latents, timesteps)
        return signal * noise - share * latents

    def snr_weights(self, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
        """Min-SNR loss weights: easy timesteps count less, so that they do not drown the others."""
        snr = self._rows(timesteps)[:, 2]
        clipped = snr.clamp(max=gamma)
        # A timestep without any signal has a ratio of zero; the limit of the fraction there is one.
        weights = torch.where(snr > 0, clipped / snr, torch.ones_like(snr))
        return weights if self.prediction == "epsilon" else clipped / (snr + 1)

    def _shares(self, like: torch.Tensor, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self._rows(timesteps).reshape(-1, 3, *[1] * (like.ndim - 1))
        return rows[:, 0], rows[:, 1]

    def _rows(self, timesteps: torch.Tensor) -> torch.Tensor:
        return self._table[timesteps]
