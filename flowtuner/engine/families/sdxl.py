"""Stable Diffusion XL: a U-Net that reads two CLIP encoders and is told each picture's size and crop."""

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

    from flowtuner.engine.data.sample import Plan

PIPELINES = ("StableDiffusionXLPipeline",)
PARTS: dict[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": (),
    "text_encoder_2": (),
    "tokenizer": (),
    "tokenizer_2": (),
    "scheduler": (),
}
TIME_IDS = "time_ids"
PIXELS_PER_LATENT = 8


class StableDiffusionXL(UNetFamily):
    """Stable Diffusion XL and what was trained from it."""

    name = "sdxl"
    flavours: ClassVar[dict[str, str]] = {
        "base-1.0": "stabilityai/stable-diffusion-xl-base-1.0",
        "base-0.9": "stabilityai/stable-diffusion-xl-base-0.9",
    }
    default_flavour = "base-1.0"

    def load_text_encoder(self, dtype: torch.dtype, device: torch.device) -> TextEncoder:
        """Loads both CLIP encoders and their tokenizers."""
        from flowtuner.engine.families.parts.clip import TwoClips
        from flowtuner.engine.families.parts.unet import load_clip

        pairs = [load_clip(self, number, dtype, device) for number in ("", "_2")]
        return TwoClips(pairs, self.max_text_tokens, self.config.clip_skip or 0)

    def describe_picture(self, plan: Plan) -> Rows:
        """The size before the crop, the crop's corner and the size after it, each as height and width."""
        import torch

        left, top, width, height = plan.crop
        # Whole numbers stay exact in runs that compute with few bits.
        return {TIME_IDS: torch.tensor([plan.resize[1], plan.resize[0], top, left, height, width])}

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
        """Draws through StableDiffusionXLPipeline."""
        from flowtuner.engine.families.parts.unet import render_with

        like = next(model.parameters())
        text, refused = self.collate_text(texts), self.collate_text([negative] * len(texts))
        embeds = {name: tensor.to(like.device, like.dtype) for name, tensor in text.items()}
        embeds |= {f"negative_{name}": tensor.to(like.device, like.dtype) for name, tensor in refused.items()}
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
        from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

        from flowtuner.engine.families.parts import tiny
        from flowtuner.engine.families.parts.unet import build_unet

        tokenizers = [tiny.build_clip_tokenizer(variant.get("words", ())) for _ in range(2)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
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
        pipeline = StableDiffusionXLPipeline(vae, *encoders, *tokenizers, unet, scheduler, add_watermarker=False)
        with atomic_folder(Path(path)) as part:
            pipeline.save_pretrained(part)
        return Path(path)

    def _pipeline(self, model: torch.nn.Module, vae: Vae) -> Any:
        from diffusers import StableDiffusionXLPipeline

        from flowtuner.engine.families.parts.loading import load_scheduler

        parts = (None, None, None, None)
        return StableDiffusionXLPipeline(vae.module, *parts, model, load_scheduler(self), add_watermarker=False)


FAMILY = StableDiffusionXL
