"""How Flux sees latents: cut into tokens with positions, text before them, pictures to edit behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
)

from flowtuner.engine.families.parts import tiny
from flowtuner.engine.families.parts.packing import pack, unpack
from flowtuner.engine.family import Rows

HEAD_WIDTH = 32
HEADS = 4
LATENT_CHANNELS = 16
TINY_TEXT_TOKENS = 32
REFERENCE_TOKENS = "reference_tokens"
REFERENCE_IDS = "reference_ids"


def predict(
    model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Rows, guidance: torch.Tensor
) -> torch.Tensor:
    """One pass of the transformer over packed latents; the answer is shaped as they were."""
    height, width = noisy.shape[2:]
    tokens, ids = pack(noisy), position_ids(height, width, noisy.device)
    count = tokens.shape[1]
    if REFERENCE_TOKENS in text:
        tokens = torch.cat([tokens, text[REFERENCE_TOKENS].to(tokens.dtype)], dim=1)
        # A batch is stacked of references of the same sizes, so that their positions are the same too.
        ids = torch.cat([ids, text[REFERENCE_IDS][0].to(ids.dtype)])
    embeds = text["prompt_embeds"]
    output: torch.Tensor = model(
        hidden_states=tokens,
        encoder_hidden_states=embeds,
        pooled_projections=text["pooled_prompt_embeds"],
        timestep=timesteps / 1000,
        img_ids=ids,
        txt_ids=torch.zeros(embeds.shape[1], 3, device=noisy.device),
        guidance=guidance if model.config.guidance_embeds else None,
        return_dict=False,
    )[0]
    return unpack(output[:, :count], height, width)


def position_ids(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Row and column of every token; the first number tells the drawn picture (0) from those it is made after."""
    ids = torch.zeros(height // 2, width // 2, 3, device=device)
    ids[..., 1] = torch.arange(height // 2, device=device)[:, None]
    ids[..., 2] = torch.arange(width // 2, device=device)
    return ids.reshape(-1, 3)


def stitch(references: Sequence[torch.Tensor]) -> Rows:
    """Latents (C, H, W) as one row of tokens, laid out so that no two references overlap and all stay near a square."""
    tokens, ids = [], []
    height = width = 0
    for latents in references:
        down, across = latents.shape[1:]
        place = position_ids(down, across, latents.device).long()
        place[:, 0] = 1
        if down + height > across + width:
            place[:, 2] += width // 2
            height, width = max(height, down), width + across
        else:
            place[:, 1] += height // 2
            height, width = height + down, max(width, across)
        tokens.append(pack(latents[None])[0])
        ids.append(place)
    return {REFERENCE_TOKENS: torch.cat(tokens), REFERENCE_IDS: torch.cat(ids)}


class StitchedKontextPipeline(FluxKontextPipeline):  # type: ignore[misc]  # diffusers carries no types
    """FluxKontextPipeline, given any number of references that are tokens already."""

    references: Rows

    def prepare_latents(self, image: Any, *arguments: Any, **named: Any) -> tuple[Any, Any, Any, Any]:
        """As the pipeline's own, which takes one reference and encodes it."""
        latents, _, ids, _ = super().prepare_latents(None, *arguments, **named)
        tokens = self.references[REFERENCE_TOKENS].to(latents.device, latents.dtype)
        return latents, tokens, ids, self.references[REFERENCE_IDS][0].to(latents.device, ids.dtype)


def choose_pipeline(is_kontext: bool, row: Rows) -> Any:
    """diffusers' own class; with references as tokens, the one that takes them."""
    if REFERENCE_TOKENS in row:
        return StitchedKontextPipeline
    return FluxKontextPipeline if is_kontext else FluxPipeline


def build_tiny(variant: Mapping[str, Any]) -> Any:
    """A pipeline of about two million random parameters, in a moment and offline."""
    text_width, layers = variant.get("text_width", 64), variant.get("layers", 2)
    words = variant.get("words", ())
    t5_tokenizer = tiny.build_t5_tokenizer(words, variant.get("text_tokens", TINY_TEXT_TOKENS))
    clip_tokenizer = tiny.build_clip_tokenizer(words)
    clip = tiny.build_clip(clip_tokenizer, width=32)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=LATENT_CHANNELS * 4,
        num_layers=layers,
        num_single_layers=layers,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=text_width,
        pooled_projection_dim=32,
        guidance_embeds=variant.get("guidance_embeds", True),
        axes_dims_rope=(HEAD_WIDTH // 4, HEAD_WIDTH // 8 * 3, HEAD_WIDTH // 8 * 3),
    )
    tiny.open_gates(transformer)
    vae: AutoencoderKL = tiny.build_vae(
        variant.get("vae_channels", (16, 32, 32)),
        LATENT_CHANNELS,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        **tiny.NO_QUANT_CONVS,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    chosen = FluxKontextPipeline if variant.get("kontext") else FluxPipeline
    return chosen(
        scheduler=scheduler,
        vae=vae,
        text_encoder=clip,
        tokenizer=clip_tokenizer,
        text_encoder_2=tiny.build_t5(len(t5_tokenizer), text_width),
        tokenizer_2=t5_tokenizer,
        transformer=transformer,
    )
