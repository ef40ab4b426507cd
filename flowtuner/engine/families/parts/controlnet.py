"""A ControlNet beside a frozen U-Net: one module that is called like the U-Net, with a picture to hold on to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from flowtuner.engine.families.parts.loading import loading, locate_folder
from flowtuner.engine.families.parts.source import find_vae_scale

if TYPE_CHECKING:
    from flowtuner.engine.family import Family

CONTROL = "reference_control"
"""The name of the pixels in a prompt's row, between 0 and 1."""

EMBEDDING = (16, 32, 96, 256)
"""Channels on the way from pixels to latents; each step but the first halves the edges, as the autoencoder does."""


class ControlledUNet(torch.nn.Module):
    """Adds what the ControlNet sees in the picture to the U-Net's own features."""

    def __init__(self, base: Any, controlnet: Any) -> None:
        super().__init__()
        self.base = base
        self.controlnet = controlnet

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, *, control: torch.Tensor, **text: Any) -> Any:
        """As the U-Net's own; `control` are the pixels of the whole picture."""
        down, middle = self.controlnet(noisy, timesteps, controlnet_cond=control, **text)
        return self.base(
            noisy, timesteps, down_block_additional_residuals=down, mid_block_additional_residual=middle, **text
        )

    def enable_gradient_checkpointing(self) -> None:
        """Recomputes activations in both."""
        self.base.enable_gradient_checkpointing()
        self.controlnet.enable_gradient_checkpointing()


def load_controlled(family: Family, base: Any) -> ControlledUNet:
    """A ControlNet that starts from given weights, or as a copy of the U-Net that changes nothing yet."""
    from diffusers import ControlNetModel

    source = family.config.controlnet_model_name_or_path
    if source is None:
        levels = EMBEDDING[: _count_halvings(family) + 1]
        made = ControlNetModel.from_unet(base, conditioning_embedding_out_channels=levels)
        torch.nn.Module.to(made, base.device, base.dtype)  # diffusers' own way warns of layers that are not there
        return ControlledUNet(base, made).eval()
    with loading(family, "controlnet", source):
        controlnet = ControlNetModel.from_pretrained(source, torch_dtype=base.dtype)
    return ControlledUNet(base, controlnet.to(base.device)).eval()


def _count_halvings(family: Family) -> int:
    scale = find_vae_scale(locate_folder(family) / "vae") or 8
    return scale.bit_length() - 1


def as_control(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels as pictures are cached, from -1 to 1, as ControlNets see them."""
    return (pixels + 1) / 2
