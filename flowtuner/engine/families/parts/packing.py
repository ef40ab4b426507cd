"""Latents cut into tokens of two by two, as several transformers see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowtuner.errors import DataError

if TYPE_CHECKING:
    import torch


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Latents (B, C, H, W) as tokens (B, H/2 * W/2, 4C): two by two latents each."""
    batch, channels, height, width = latents.shape
    if height % 2 or width % 2:
        raise DataError(
            f"The model sees latents two by two, and these are {width}x{height}. "
            "Set aspect_bucket_alignment (of the dataset, or of the run) to 16 or more."
        )
    cut = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, height // 2 * (width // 2), channels * 4)


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The reverse of `pack`."""
    batch, _, channels = tokens.shape
    cut = tokens.reshape(batch, height // 2, width // 2, channels // 4, 2, 2)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // 4, height, width)
