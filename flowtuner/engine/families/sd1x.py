"""Stable Diffusion 1.x: a U-Net that reads one CLIP encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from flowtuner.engine.families.parts.pipeline import SCHEDULER, Part, TextPart
from flowtuner.engine.families.parts.unet import UNetFamily, control_of, settings_of
from flowtuner.engine.family import Rows, TextEncoder

if TYPE_CHECKING:
    import torch


class StableDiffusion1(UNetFamily):
    """Stable Diffusion 1.x and what was trained from it."""

    name = "sd1x"
    flavours: ClassVar[dict[str, str]] = {
        "1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "1.4": "CompVis/stable-diffusion-v1-4",
    }
    default_flavour = "1.5"
    architecture = "stable-diffusion-v1"
    licence = "creativeml-openrail-m"
    pipelines = ("StableDiffusionPipeline",)
    parts: ClassVar[dict[str, Part]] = {
        "unet": Part("UNet2DConditionModel"),
        "vae": Part("AutoencoderKL"),
        "text_encoder": TextPart("CLIPTextModel"),
        "tokenizer": TextPart("CLIPTokenizer"),
        "scheduler": SCHEDULER,
    }
    control_pipeline = "StableDiffusionControlNetPipeline"
    pipeline_options: ClassVar[dict[str, Any]] = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }

    def join_text_parts(self, parts: Mapping[str, Any]) -> TextEncoder:
        """CLIP and its tokenizer."""
        from flowtuner.engine.families.parts.clip import ClipTokens

        return ClipTokens(parts["tokenizer"], parts["text_encoder"], self.max_text_tokens, self.config.clip_skip or 0)

    def text_shapes(self, model: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """CLIP's states, padded to the longest prompt."""
        return {"prompt_embeds": (self.max_text_tokens, settings_of(model).cross_attention_dim)}

    def predict(self, model: torch.nn.Module, noisy: torch.Tensor, timesteps: torch.Tensor, text: Rows) -> torch.Tensor:
        """The predicted noise or velocity."""
        prediction: torch.Tensor = model(
            noisy, timesteps, encoder_hidden_states=text["prompt_embeds"], return_dict=False, **control_of(text)
        )[0]
        return prediction

    @classmethod
    def build_tiny(cls, variant: Mapping[str, Any]) -> Any:
        """A model of about a million parameters; variants: prediction_type, words (more whole words)."""
        from diffusers import DDPMScheduler, StableDiffusionPipeline

        from flowtuner.engine.families.parts import tiny
        from flowtuner.engine.families.parts.unet import build_unet

        tokenizer = tiny.build_clip_tokenizer(variant.get("words", ()))
        scheduler = DDPMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=variant.get("prediction_type", "epsilon"),
            steps_offset=1,
            clip_sample=False,
        )
        return StableDiffusionPipeline(
            tokenizer=tokenizer,
            text_encoder=tiny.build_clip(tokenizer, 64),
            vae=tiny.build_vae((16, 32, 32), 4, scaling_factor=0.18215),
            unet=build_unet(64),
            scheduler=scheduler,
            **cls.pipeline_options,
        )


FAMILY = StableDiffusion1
