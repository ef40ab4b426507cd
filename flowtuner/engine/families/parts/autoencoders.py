"""Autoencoders with the scaling that their models expect of latents."""

from __future__ import annotations

from typing import Any

import torch

from flowtuner.engine.family import Vae

CHANNELS = (1, -1, 1, 1, 1)


class KlVae(Vae):
    """AutoencoderKL: latents are shifted and scaled by one number each."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.scale = 2 ** (len(module.config.block_out_channels) - 1)
        self._factor = module.config.scaling_factor
        self._shift = getattr(module.config, "shift_factor", None) or 0.0

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """The mode of the posterior, scaled."""
        mode = self.module.encode(pixels.to(self.module.device, self.module.dtype)).latent_dist.mode()
        latents: torch.Tensor = (mode - self._shift) * self._factor
        return latents

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures from scaled latents."""
        plain = latents.to(self.module.device, self.module.dtype) / self._factor + self._shift
        pixels: torch.Tensor = self.module.decode(plain, return_dict=False)[0]
        return pixels


class DeepVae(Vae):
    """AutoencoderDC: few, deep latents without chance in them, scaled by one number."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.scale = 2 ** (len(module.config.encoder_block_out_channels) - 1)
        self._factor = module.config.scaling_factor

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """The scaled latents."""
        latents: torch.Tensor = (
            self.module.encode(pixels.to(self.module.device, self.module.dtype)).latent * self._factor
        )
        return latents

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures from scaled latents."""
        plain = latents.to(self.module.device, self.module.dtype) / self._factor
        pixels: torch.Tensor = self.module.decode(plain, return_dict=False)[0]
        return pixels


class VideoVae(Vae):
    """An autoencoder of films (B, C, F, H, W): latents are shifted and scaled by channel."""

    sees_time = True

    def __init__(self, module: Any, scale: int) -> None:
        self.module = module
        self.scale = scale

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """The mode of the posterior, normalised."""
        mode = self.module.encode(pixels.to(self.module.device, self.module.dtype)).latent_dist.mode()
        latents: torch.Tensor = (mode - self._mean(mode.device)) / self._deviation(mode.device)
        return latents.to(mode.dtype)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Films from normalised latents."""
        device = self.module.device
        plain = latents.to(device) * self._deviation(device) + self._mean(device)
        pixels: torch.Tensor = self.module.decode(plain.to(self.module.dtype), return_dict=False)[0]
        return pixels

    def _mean(self, device: torch.device) -> torch.Tensor:
        return torch.tensor(self.module.config.latents_mean, device=device).reshape(CHANNELS)

    def _deviation(self, device: torch.device) -> torch.Tensor:
        return torch.tensor(self.module.config.latents_std, device=device).reshape(CHANNELS)


class FilmVae(VideoVae):
    """An autoencoder of films that also takes pictures, as films of one frame."""

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """The latents of films (B, 3, F, H, W) or pictures (B, 3, H, W)."""
        return super().encode(pixels[:, :, None] if pixels.ndim == 4 else pixels)


class StillVae(VideoVae):
    """An autoencoder of films that is given pictures: films of one frame."""

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """The latents of pictures (B, 3, H, W)."""
        return super().encode(pixels[:, :, None])[:, :, 0]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures from latents (B, C, H, W)."""
        return super().decode(latents[:, :, None])[:, :, 0]
