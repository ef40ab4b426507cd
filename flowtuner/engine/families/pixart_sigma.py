"""PixArt Sigma: a diffusion transformer with T5 text and a four-channel autoencoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from flowtuner.engine.families.parts.pipeline import SCHEDULER, Part, PipelineFamily, TextPart
from flowtuner.engine.family import Prediction, Rows, TextEncoder

if TYPE_CHECKING:
    import torch

    from flowtuner.engine.diffusion import Schedule
    from flowtuner.options import TrainingConfig

COMPANIONS = "PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers"
TRANSFORMER_ONLY = ("PixArt-alpha/PixArt-Sigma-XL-2-512-MS", "PixArt-alpha/PixArt-Sigma-XL-2-2K-MS")


class PixArtSigma(PipelineFamily):
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
    licence = "openrail++"
    loads_lora = False
    pipelines = ("PixArtSigmaPipeline", "PixArtAlphaPipeline")
    parts: ClassVar[dict[str, Part]] = {
        # The first releases carry the older name.
        "transformer": Part("PixArtTransformer2DModel", also=("Transformer2DModel",)),
        "vae": Part("AutoencoderKL"),
        "text_encoder": TextPart("T5EncoderModel"),
        "tokenizer": TextPart("T5Tokenizer"),
        "scheduler": SCHEDULER,
    }
    prediction: ClassVar[Prediction] = "epsilon"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    max_text_tokens = 300

    def __init__(self, source: str | Path, config: TrainingConfig) -> None:
        super().__init__(source, config)
        if str(source) in TRANSFORMER_ONLY:
            self.companions = COMPANIONS

    def join_text_parts(self, parts: Mapping[str, Any]) -> TextEncoder:
        """T5 and its tokenizer."""
        from flowtuner.engine.families.parts.encoders import T5Text

        return T5Text(parts["tokenizer"], parts["text_encoder"], self.max_text_tokens)

    def collate_text(self, rows: Sequence[Rows]) -> Rows:
        """Pads to the longest prompt of the batch; with the mask this equals padding to 300 tokens."""
        from flowtuner.engine.families.parts.encoders import pad_rows

        embeds, mask = pad_rows(rows)
        return {"prompt_embeds": embeds, "prompt_attention_mask": mask}

    def text_shapes(self, model: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """T5's states."""
        return {"prompt_embeds": (tokens, model.config.caption_channels)}

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

    def choose_pipeline(self, model: Any, texts: Sequence[Rows]) -> Any:
        """PixArtSigmaPipeline, or PixArtAlphaPipeline where the model takes size conditions."""
        return _pipeline_class(model)

    def prompt_arguments(self, texts: Sequence[Rows], negative: Rows) -> dict[str, Any]:
        """As every pipeline's, but this one has a negative prompt of its own unless it is told otherwise."""
        return super().prompt_arguments(texts, negative) | {"negative_prompt": None}

    def drawing_arguments(self, width: int, height: int, guidance: float) -> dict[str, Any]:
        """The size exactly as asked for."""
        exactly = {"use_resolution_binning": False, "clean_caption": False}
        return super().drawing_arguments(width, height, guidance) | exactly

    @classmethod
    def build_tiny(cls, variant: Mapping[str, Any]) -> Any:
        """A model of about a million parameters; variants: patch_size, sample_size (latents), layers, width,
        vae_channels, text_width, words (more whole words for the tokenizer), additional_conditions."""
        from diffusers import DPMSolverMultistepScheduler

        from flowtuner.engine.families.parts import tiny

        text_width = variant.get("text_width", 64)
        tokenizer = tiny.build_t5_tokenizer(variant.get("words", ()))
        text_encoder = tiny.build_t5(len(tokenizer), text_width)
        vae = tiny.build_vae(tuple(variant.get("vae_channels", (16, 32, 32))), 4, scaling_factor=0.13025)
        transformer = _build_transformer(text_width, variant)
        scheduler = DPMSolverMultistepScheduler(
            num_train_timesteps=1000, beta_start=0.0001, beta_end=0.02, beta_schedule="linear"
        )
        return _pipeline_class(transformer)(tokenizer, text_encoder, vae, transformer, scheduler)


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


def _build_transformer(text_width: int, variant: Mapping[str, Any]) -> Any:
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
