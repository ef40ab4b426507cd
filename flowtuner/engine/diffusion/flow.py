"""The flow-matching schedule: straight lines from pictures to noise, and which points of them are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import torch

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig

TIMESTEPS = 1000
Draw = Literal["sigmoid", "uniform", "beta"]


class FlowSchedule:
    """The share of noise runs from 0 to 1; a timestep is that share times 1000, as diffusers counts it."""

    prediction = "flow_matching"

    def __init__(
        self,
        shift: float | None = None,
        *,
        draw: Draw = "sigmoid",
        sigmoid_scale: float = 1.0,
        beta: tuple[float, float] = (2.0, 2.0),
    ) -> None:
        self._shift = shift
        self._draw = draw
        self._sigmoid_scale = sigmoid_scale
        self._beta = beta

    @classmethod
    def from_config(cls, config: TrainingConfig) -> Self:
        """The schedule that the options ask for."""
        draw: Draw = "sigmoid"
        if config.flow_use_uniform_schedule:
            draw = "uniform"
        elif config.flow_use_beta_schedule:
            draw = "beta"
        return cls(
            config.flow_schedule_shift,
            draw=draw,
            sigmoid_scale=config.flow_sigmoid_scale,
            beta=(config.flow_beta_schedule_alpha, config.flow_beta_schedule_beta),
        )

    def to(self, device: torch.device) -> Self:
        """Nothing is kept that a device could hold."""
        return self

    def sample_timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Timesteps by the schedule's draw, then shifted: a shift above 1 favours noisy ones."""
        shares = self._draw_shares(count, generator)
        if self._shift:
            shares = self._shift * shares / (1 + (self._shift - 1) * shares)
        return shares * TIMESTEPS

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The point of the line from picture to noise at the given timesteps."""
        share = (timesteps.to(latents.dtype) / TIMESTEPS).reshape(-1, *[1] * (latents.ndim - 1))
        return (1 - share) * latents + share * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The direction of the line, the same all along it."""
        return noise - latents

    def snr_weights(self, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
        """All one: Min-SNR weighting belongs to discrete schedules."""
        return torch.ones_like(timesteps, dtype=torch.float32)

    def _draw_shares(self, count: int, generator: torch.Generator) -> torch.Tensor:
        device = generator.device
        if self._draw == "uniform":
            return torch.rand(count, generator=generator, device=device)
        if self._draw == "beta":
            # A beta variable is the share of one gamma variable in two; torch's own distribution takes no generator.
            ends = torch.tensor([self._beta] * count, device=device)
            gammas = torch._standard_gamma(ends, generator=generator)
            return gammas[:, 0] / gammas.sum(dim=1)
        return torch.sigmoid(self._sigmoid_scale * torch.randn(count, generator=generator, device=device))
