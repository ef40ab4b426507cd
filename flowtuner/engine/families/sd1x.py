"""Stable Diffusion 1.x: a U-Net that reads one CLIP encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from flowtuner.durable import atomic_folder
from flowtuner.engine.families.parts import source as sources
from flowtuner.engine.families.parts.unet import UNetFamily
from flowtuner.engine.family import Rows, TextEncoder, Vae

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

PIPELINES = ("StableDiffusionPipeline",)
PARTS: dict[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": (),
    "tokenizer": (),
    "scheduler": (),
}


class StableDiffusion1(UNetFamily):
    """Stable Diffusion 1.x and what was trained from it."""

    name = "sd1x"
    flavours: ClassVar[dict[str, str]] = {
        "1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "1.4": "CompVis/stable-diffusion-v1-4",
    }
    default_flavour = "1.5"

    def load_text_encoder(self, dtype: torch.dtype, device: torch.device) -> TextEncoder:
        """Loads CLIP and its tokenizer."""
        from flowtuner.engine.families.parts.clip import ClipTokens
        from flowtuner.engine.families.parts.unet import load_clip

        tokenizer, model = load_clip(self, "", dtype, device)
        return ClipTokens(tokenizer, model, self.max_text_tokens, self.config.clip_skip or 0)

    def predict(self, model: torch.nn.Module, noisy: torch.Tensor, timesteps: torch.Tensor, text: Rows) -> torch.Tensor:
        """The predicted noise or velocity."""
        prediction: torch.Tensor = model(
            noisy, timesteps, encoder_hidden_states=text["prompt_embeds"], return_dict=False
        )[0]
        return prediction

    def render_batch(
        self,
        model: torch.nn.Module,
        vae: Vae,
        texts: Sequence[Rows],
        negative: Rows,
        *,
        width: int,
        height: int,
        steps: int,
        guidance: float,
        seeds: Sequence[int],
    ) -> list[Image]:
        """Draws through StableDiffusionPipeline."""
        from flowtuner.engine.families.parts.unet import render_with

        like = next(model.parameters())
        text, refused = self.collate_text(texts), self.collate_text([negative] * len(texts))
        embeds = {
            "prompt_embeds": text["prompt_embeds"].to(like.device, like.dtype),
            "negative_prompt_embeds": refused["prompt_embeds"].to(like.device, like.dtype),
        }
        size = {"width": width, "height": height, "num_inference_steps": steps, "guidance_scale": guidance}
        images: list[Image] = render_with(self._pipeline(model, vae), embeds, seeds, **size)
        return images

    @classmethod
    def check_source(cls, path: Path) -> list[str]:
        """Says what is wrong with a local folder."""
        return sources.find_faults(path, PIPELINES, PARTS)

    @classmethod
    def tiny(cls, path: Path, *, seed: int = 0, **variant: Any) -> Path:
        """A model of about a million parameters; variants: prediction_type, words (more whole words)."""
        import torch
        from diffusers import DDPMScheduler, StableDiffusionPipeline

        from flowtuner.engine.families.parts import tiny
        from flowtuner.engine.families.parts.unet import build_unet

        tokenizer = tiny.build_clip_tokenizer(variant.get("words", ()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            text_encoder = tiny.build_clip(tokenizer, 64)
            vae = tiny.build_vae((16, 32, 32), 4, scaling_factor=0.18215)
            unet = build_unet(64)
        scheduler = DDPMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=variant.get("prediction_type", "epsilon"),
            steps_offset=1,
            clip_sample=False,
        )
        pipeline = StableDiffusionPipeline(
            vae, text_encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
        )
        with atomic_folder(Path(path)) as part:
            pipeline.save_pretrained(part)
        return Path(path)

    def _pipeline(self, model: torch.nn.Module, vae: Vae) -> Any:
        from diffusers import StableDiffusionPipeline

        from flowtuner.engine.families.parts.loading import load_scheduler

        scheduler = load_scheduler(self)
        return StableDiffusionPipeline(
            vae.module, None, None, model, scheduler, None, None, requires_safety_checker=False
        )


FAMILY = StableDiffusion1
