"""Models of real and of tiny size with random weights, built on the device they are to stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from flowtuner.engine.families import open_family

if TYPE_CHECKING:
    from flowtuner.engine.family import Family
    from flowtuner.options import TrainingConfig

Rows = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Model:
    """One architecture at one size: its configuration, and the shapes of what it is fed."""

    family: str
    settings: Mapping[str, Any]
    channels: int
    edge: int
    """Of the latents: 128 is a picture of 1024 pixels."""
    tokens: int
    text_width: int
    pooled_width: int = 0

    def build(self, dtype: torch.dtype, device: torch.device) -> Any:
        """The transformer with small random weights; it never exists anywhere but on the device."""
        import diffusers

        kind = {"pixart_sigma": diffusers.PixArtTransformer2DModel, "flux": diffusers.FluxTransformer2DModel}
        with torch.device("meta"):
            model = kind[self.family](**self.settings)
        model = model.to(dtype).to_empty(device=device)
        generator = torch.Generator(device).manual_seed(0)
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.data.normal_(std=0.02, generator=generator)
        _restore_positions(model, device)
        return model

    def open(self, config: TrainingConfig) -> Family:
        """The family, which loads this model instead of one from a disk."""
        kind: Any = open_family(self.family)
        size = self

        class Random(kind):  # type: ignore[misc]
            """The family with a model that no folder holds."""

            def load_model(self, dtype: torch.dtype, device: torch.device) -> Any:
                """Builds it."""
                return size.build(dtype, device)

            def noise_schedule(self) -> Any:
                """The family's own, without a folder that says so."""
                return _linear_schedule() if size.family == "pixart_sigma" else super().noise_schedule()

        return Random("unused", config)

    def draw_latents(self, count: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """Random latents."""
        return torch.randn(count, self.channels, self.edge, self.edge, device=device, dtype=dtype)

    def draw_text(self, count: int, device: torch.device, dtype: torch.dtype) -> Rows:
        """Random prompts of the family's full length."""
        embeds = torch.randn(count, self.tokens, self.text_width, device=device, dtype=dtype)
        if self.pooled_width:
            pooled = torch.randn(count, self.pooled_width, device=device, dtype=dtype)
            return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
        mask = torch.ones(count, self.tokens, device=device, dtype=torch.bool)
        return {"prompt_embeds": embeds, "prompt_attention_mask": mask}


def _pixart(layers: int, heads: int, width: int, sample: int, text: int) -> dict[str, Any]:
    return {
        "num_layers": layers,
        "num_attention_heads": heads,
        "attention_head_dim": width,
        "cross_attention_dim": heads * width,
        "in_channels": 4,
        "out_channels": 8,
        "sample_size": sample,
        "patch_size": 2,
        "caption_channels": text,
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "use_additional_conditions": False,
        "interpolation_scale": 2,
    }


def _flux(double: int, single: int, heads: int, width: int, text: int, pooled: int) -> dict[str, Any]:
    third = width // 8 // 2 * 2
    return {
        "num_layers": double,
        "num_single_layers": single,
        "num_attention_heads": heads,
        "attention_head_dim": width,
        "joint_attention_dim": text,
        "pooled_projection_dim": pooled,
        "guidance_embeds": True,
        "axes_dims_rope": (third, (width - third) // 2, (width - third) // 2),
    }


MODELS: Mapping[str, Mapping[str, Model]] = {
    "pixart_sigma": {
        "real": Model("pixart_sigma", _pixart(42, 16, 72, 128, 4096), 4, 128, 120, 4096),
        "tiny": Model("pixart_sigma", _pixart(2, 4, 16, 16, 32), 4, 16, 12, 32),
    },
    "flux": {
        "real": Model("flux", _flux(19, 38, 24, 128, 4096, 768), 16, 128, 512, 4096, 768),
        "tiny": Model("flux", _flux(1, 1, 4, 32, 32, 16), 16, 16, 12, 32, 16),
    },
}


def _linear_schedule() -> Any:
    from diffusers import DDPMScheduler

    from flowtuner.engine.diffusion import Schedule

    return Schedule.from_scheduler(DDPMScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear"))


def _restore_positions(model: Any, device: torch.device) -> None:
    # Position tables are computed, not trained; the meta device left none.
    embedding = getattr(model, "pos_embed", None)
    table = getattr(embedding, "pos_embed", None)
    if not isinstance(table, torch.Tensor):
        return
    from diffusers.models.embeddings import get_2d_sincos_pos_embed

    grid = int(table.shape[-2] ** 0.5)
    values = get_2d_sincos_pos_embed(
        table.shape[-1],
        grid,
        base_size=embedding.base_size,
        interpolation_scale=embedding.interpolation_scale,
        output_type="pt",
    )
    table.data.copy_(values.reshape(table.shape).to(device, table.dtype))
