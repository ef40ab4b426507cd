"""Stable Diffusion XL: a U-Net that reads two CLIP encoders and is told each picture's size and crop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from flowtuner.engine.families.parts.pipeline import SCHEDULER, Part, TextPart
from flowtuner.engine.families.parts.unet import UNetFamily, control_of, settings_of
from flowtuner.engine.family import Rows, TextEncoder

if TYPE_CHECKING:
    import torch

    from flowtuner.engine.data.sample import Plan

TIME_IDS = "time_ids"
PIXELS_PER_LATENT = 8
NUMBERS = 6
"""How many numbers describe a picture's size and crop."""


class StableDiffusionXL(UNetFamily):
    """Stable Diffusion XL and what was trained from it."""

    name = "sdxl"
    flavours: ClassVar[dict[str, str]] = {
        "base-1.0": "stabilityai/stable-diffusion-xl-base-1.0",
        "base-0.9": "stabilityai/stable-diffusion-xl-base-0.9",
    }
    default_flavour = "base-1.0"
    architecture = "stable-diffusion-xl-v1-base"
    licence = "openrail++"
    pipelines = ("StableDiffusionXLPipeline",)
    parts: ClassVar[dict[str, Part]] = {
        "unet": Part("UNet2DConditionModel"),
        "vae": Part("AutoencoderKL"),
        "text_encoder": TextPart("CLIPTextModel"),
        "text_encoder_2": TextPart("CLIPTextModelWithProjection"),
        "tokenizer": TextPart("CLIPTokenizer"),
        "tokenizer_2": TextPart("CLIPTokenizer"),
        "scheduler": SCHEDULER,
    }
    control_pipeline = "StableDiffusionXLControlNetPipeline"
    pipeline_options: ClassVar[dict[str, Any]] = {"add_watermarker": False}

    def join_text_parts(self, parts: Mapping[str, Any]) -> TextEncoder:
        """Both CLIP encoders and their tokenizers."""
        from flowtuner.engine.families.parts.clip import TwoClips

        pairs = [(parts[f"tokenizer{number}"], parts[f"text_encoder{number}"]) for number in ("", "_2")]
        return TwoClips(pairs, self.max_text_tokens, self.config.clip_skip or 0)

    def describe_picture(self, plan: Plan) -> Rows:
        """The size before the crop, the crop's corner and the size after it, each as height and width."""
        import torch

        left, top, width, height = plan.crop
        # Whole numbers stay exact in runs that compute with few bits.
        return {TIME_IDS: torch.tensor([plan.resize[1], plan.resize[0], top, left, height, width])}

    def text_shapes(self, model: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """The states of both CLIPs, padded, and the summary of the second."""
        config = settings_of(model)
        pooled = config.projection_class_embeddings_input_dim - NUMBERS * config.addition_time_embed_dim
        states = (self.max_text_tokens, config.cross_attention_dim)
        return {"prompt_embeds": states, "pooled_prompt_embeds": (pooled,)}

    def predict(self, model: torch.nn.Module, noisy: torch.Tensor, timesteps: torch.Tensor, text: Rows) -> torch.Tensor:
        """The predicted noise or velocity; a picture that is not described counts as whole."""
        time_ids = text.get(TIME_IDS)
        if time_ids is None:
            height, width = (PIXELS_PER_LATENT * edge for edge in noisy.shape[-2:])
            time_ids = timesteps.new_tensor([[height, width, 0, 0, height, width]]).expand(len(noisy), -1)
        prediction: torch.Tensor = model(
            noisy,
            timesteps,
            encoder_hidden_states=text["prompt_embeds"],
            added_cond_kwargs={"text_embeds": text["pooled_prompt_embeds"], "time_ids": time_ids},
            return_dict=False,
            **control_of(text),
        )[0]
        return prediction

    @classmethod
    def build_tiny(cls, variant: Mapping[str, Any]) -> Any:
        """A model of about a million parameters; variants: prediction_type, words (more whole words)."""
        from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

        from flowtuner.engine.families.parts import tiny
        from flowtuner.engine.families.parts.unet import build_unet

        tokenizers = [tiny.build_clip_tokenizer(variant.get("words", ())) for _ in range(2)]
        encoders = [tiny.build_clip(tokenizers[0], 32), tiny.build_clip(tokenizers[1], 64, is_projected=True)]
        vae = tiny.build_vae((16, 32, 32), 4, scaling_factor=0.13025)
        unet = build_unet(
            32 + 64,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 64,
        )
        scheduler = EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=variant.get("prediction_type", "epsilon"),
            timestep_spacing="leading",
            steps_offset=1,
        )
        return StableDiffusionXLPipeline(vae, *encoders, *tokenizers, unet, scheduler, **cls.pipeline_options)


FAMILY = StableDiffusionXL
