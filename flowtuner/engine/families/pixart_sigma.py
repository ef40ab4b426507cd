"""PixArt Sigma: a diffusion transformer with T5 text and a four-channel autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from flowtuner.durable import atomic_folder
from flowtuner.engine.families.parts import source as sources
from flowtuner.engine.family import Family, Prediction, Rows, TextEncoder, Vae

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from flowtuner.engine.diffusion import Schedule
    from flowtuner.options import TrainingConfig

MODEL_CLASSES = ("PixArtTransformer2DModel", "Transformer2DModel")  # the first releases carry the older name
PIPELINES = ("PixArtSigmaPipeline", "PixArtAlphaPipeline")
COMPANIONS = "PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers"
TRANSFORMER_ONLY = ("PixArt-alpha/PixArt-Sigma-XL-2-512-MS", "PixArt-alpha/PixArt-Sigma-XL-2-2K-MS")
PARTS: dict[str, tuple[str, ...]] = {
    "transformer": MODEL_CLASSES,
    "vae": ("AutoencoderKL",),
    "text_encoder": (),
    "tokenizer": (),
    "scheduler": (),
}


class PixArtSigma(Family):
    """PixArt Sigma, and PixArt Alpha checkpoints, which differ in their size conditions only."""

    name = "pixart_sigma"
    flavours: ClassVar[dict[str, str]] = {
        "900M-1024-v0.6": "terminusresearch/pixart-900m-1024-ft-v0.6",
        "900M-1024-v0.7-stage1": "terminusresearch/pixart-900m-1024-ft-v0.7-stage1",
        "900M-1024-v0.7-stage2": "terminusresearch/pixart-900m-1024-ft-v0.7-stage2",
        "600M-512": "PixArt-alpha/PixArt-Sigma-XL-2-512-MS",
        "600M-1024": "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        "600M-2048": "PixArt-alpha/PixArt-Sigma-XL-2-2K-MS",
    }
    default_flavour = "900M-1024-v0.6"
    prediction: ClassVar[Prediction] = "epsilon"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    max_text_tokens = 300

    def __init__(self, source: str | Path, config: TrainingConfig) -> None:
        super().__init__(source, config)
        if str(source) in TRANSFORMER_ONLY:
            self.companions = COMPANIONS

    def load_text_encoder(self, dtype: torch.dtype, device: torch.device) -> TextEncoder:
        """Loads T5 and its tokenizer."""
        from transformers import T5EncoderModel, T5Tokenizer

        from flowtuner.engine.families.parts.encoders import T5Text
        from flowtuner.engine.families.parts.loading import loading, origin_of

        with loading(self, "tokenizer"):
            tokenizer = T5Tokenizer.from_pretrained(**origin_of(self, "tokenizer"))
        with loading(self, "text_encoder"):
            model = T5EncoderModel.from_pretrained(**origin_of(self, "text_encoder"), dtype=dtype)
        return T5Text(tokenizer, model.to(device).eval(), self.max_text_tokens)

    def load_vae(self, dtype: torch.dtype, device: torch.device) -> Vae:
        """Loads the autoencoder."""
        from flowtuner.engine.families.parts.loading import load_kl_vae

        return load_kl_vae(self, dtype, device)

    def load_model(self, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
        """Loads the transformer."""
        from diffusers import PixArtTransformer2DModel

        from flowtuner.engine.families.parts.loading import loading, origin_of

        with loading(self, self.component):
            model = PixArtTransformer2DModel.from_pretrained(**origin_of(self, self.component), torch_dtype=dtype)
        loaded: torch.nn.Module = model.to(device).eval()
        return loaded

    def collate_text(self, rows: Sequence[Rows]) -> Rows:
        """Pads to the longest prompt of the batch; with the mask this equals padding to 300 tokens."""
        import torch

        embeds = [row["prompt_embeds"] for row in rows]
        lengths = torch.tensor([len(embed) for embed in embeds])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        return {
            "prompt_embeds": torch.nn.utils.rnn.pad_sequence(embeds, batch_first=True),
            "prompt_attention_mask": mask.to(embeds[0].device),
        }

    def predict(self, model: torch.nn.Module, noisy: torch.Tensor, timesteps: torch.Tensor, text: Rows) -> torch.Tensor:
        """The predicted noise; the learned variance in the other half of the channels is not trained."""
        output: torch.Tensor = model(
            noisy,
            encoder_hidden_states=text["prompt_embeds"],
            encoder_attention_mask=text["prompt_attention_mask"],
            timestep=timesteps,
            added_cond_kwargs=_size_conditions(model, noisy),
            return_dict=False,
        )[0]
        return output[:, : noisy.shape[1]]

    def noise_schedule(self) -> Schedule:
        """The schedule in the source's scheduler configuration."""
        from flowtuner.engine.diffusion import Schedule
        from flowtuner.engine.families.parts.loading import load_scheduler

        return Schedule.from_scheduler(load_scheduler(self))

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
        """Draws through PixArtSigmaPipeline (PixArtAlphaPipeline where the model takes size conditions)."""
        import torch

        from flowtuner.engine.families.parts.loading import muted_deprecations

        count = len(texts)
        # Collated together, since classifier-free guidance runs both in one batch of equal lengths.
        text = self.collate_text([*texts, *[negative] * count])
        like = next(model.parameters())
        embeds = text["prompt_embeds"].to(like.device, like.dtype)
        mask = text["prompt_attention_mask"].to(like.device)
        pipeline = self._pipeline(model, vae)
        with muted_deprecations():
            images: list[Image] = pipeline(
                prompt=None,
                negative_prompt=None,
                prompt_embeds=embeds[:count],
                prompt_attention_mask=mask[:count],
                negative_prompt_embeds=embeds[count:],
                negative_prompt_attention_mask=mask[count:],
                width=width,
                height=height,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],  # on the CPU: the same on any device
                use_resolution_binning=False,
                clean_caption=False,
            ).images
        return images

    def save_pipeline(self, model: torch.nn.Module, target: Path) -> None:
        """Writes the trained transformer beside copies of the source's other parts."""
        from flowtuner.engine.families.parts.loading import copy_other_parts, locate_folder
        from flowtuner.engine.families.parts.weights import save_model

        copy_other_parts(locate_folder(self), target, self.component, model)
        save_model(model, target / self.component)

    @classmethod
    def check_source(cls, path: Path) -> list[str]:
        """Says what is wrong with a local folder."""
        return sources.find_faults(path, PIPELINES, PARTS)

    @classmethod
    def tiny(cls, path: Path, *, seed: int = 0, **variant: Any) -> Path:
        """A model of about a million parameters; variants: patch_size, sample_size (latents), layers, width,
        vae_channels, text_width, words (more whole words for the tokenizer), additional_conditions."""
        import torch
        from diffusers import DPMSolverMultistepScheduler

        from flowtuner.engine.families.parts import tiny

        channels = tuple(variant.get("vae_channels", (16, 32, 32)))
        text_width = variant.get("text_width", 64)
        tokenizer = tiny.build_t5_tokenizer(variant.get("words", ()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            text_encoder = tiny.build_t5(len(tokenizer), text_width)
            vae = tiny.build_vae(channels, 4, scaling_factor=0.13025)
            transformer = _build_transformer(text_width, variant)
        scheduler = DPMSolverMultistepScheduler(
            num_train_timesteps=1000, beta_start=0.0001, beta_end=0.02, beta_schedule="linear"
        )
        pipeline = _pipeline_class(transformer)(tokenizer, text_encoder, vae, transformer, scheduler)
        with atomic_folder(Path(path)) as part:
            pipeline.save_pretrained(part)
        return Path(path)

    def _pipeline(self, model: torch.nn.Module, vae: Vae) -> Any:
        from flowtuner.engine.families.parts.loading import load_scheduler

        pipeline = _pipeline_class(model)(
            tokenizer=None,
            text_encoder=None,
            vae=vae.module,
            transformer=model,
            scheduler=load_scheduler(self),
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def _size_conditions(model: Any, noisy: torch.Tensor) -> dict[str, torch.Tensor | None]:
    import torch

    if not model.use_additional_conditions:
        return {"resolution": None, "aspect_ratio": None}
    batch, _, height, width = noisy.shape
    pixels = torch.tensor([height * 8.0, width * 8.0], device=noisy.device, dtype=noisy.dtype)
    return {
        "resolution": pixels.repeat(batch, 1),
        "aspect_ratio": (pixels[0] / pixels[1]).repeat(batch, 1),
    }


def _pipeline_class(model: Any) -> Any:
    from diffusers import PixArtAlphaPipeline, PixArtSigmaPipeline

    return PixArtAlphaPipeline if model.use_additional_conditions else PixArtSigmaPipeline


def _build_transformer(text_width: int, variant: dict[str, Any]) -> Any:
    from diffusers import PixArtTransformer2DModel

    width, heads = variant.get("width", 128), 4
    conditions = bool(variant.get("additional_conditions", False))
    return PixArtTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=4,
        out_channels=8,
        num_layers=variant.get("layers", 4),
        cross_attention_dim=width,
        # Alpha's pipeline gives size conditions to models of this size only.
        sample_size=variant.get("sample_size", 128 if conditions else 16),
        patch_size=variant.get("patch_size", 2),
        caption_channels=text_width,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        use_additional_conditions=conditions,
        interpolation_scale=1,
    )


FAMILY = PixArtSigma
