"""Flux.1: a flow-matching transformer with CLIP and T5 text; Kontext is the flavour that edits a given picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from flowtuner.durable import atomic_folder
from flowtuner.engine.families.parts import source as sources
from flowtuner.engine.family import Family, Prediction, Rows, TextEncoder, Vae
from flowtuner.errors import Fault, ModelError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from flowtuner.engine.diffusion import NoiseSchedule
    from flowtuner.options import TrainingConfig

KONTEXT = "kontext"
KONTEXT_PIPELINE = "FluxKontextPipeline"
PIPELINES = ("FluxPipeline", KONTEXT_PIPELINE)
PARTS: dict[str, tuple[str, ...]] = {
    "transformer": ("FluxTransformer2DModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": (),
    "text_encoder_2": (),
    "tokenizer": (),
    "tokenizer_2": (),
    "scheduler": (),
}
TEXT_TOKENS = 512
SCHNELL_TEXT_TOKENS = 256
VAE_SCALE = 8
PICTURE_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TEXT_ATTENTION = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
PICTURE_LAYERS = ("ff.net.0.proj", "ff.net.2", "proj_mlp", "proj_out")
TEXT_LAYERS = ("ff_context.net.0.proj", "ff_context.net.2")
LORA_TARGETS: dict[str, tuple[str, ...]] = {
    "all": (*PICTURE_ATTENTION, *TEXT_ATTENTION),
    "all+ffs": (*PICTURE_ATTENTION, *TEXT_ATTENTION, *PICTURE_LAYERS, *TEXT_LAYERS),
    "context": TEXT_ATTENTION,
    "context+ffs": (*TEXT_ATTENTION, *TEXT_LAYERS),
    "ai-toolkit": (
        *(*PICTURE_ATTENTION, *TEXT_ATTENTION, *PICTURE_LAYERS, *TEXT_LAYERS),
        *("norm.linear", "norm1.linear", "norm1_context.linear"),
    ),
    "tiny": ("single_transformer_blocks.7.proj_out", "single_transformer_blocks.20.proj_out"),
    "nano": ("single_transformer_blocks.7.proj_out",),
}


class Flux(Family):
    """Flux.1 in all its flavours; whether guidance is fed in, the model's own configuration says."""

    name = "flux"
    flavours: ClassVar[dict[str, str]] = {
        "dev": "black-forest-labs/FLUX.1-dev",
        "schnell": "black-forest-labs/FLUX.1-schnell",
        "krea": "black-forest-labs/FLUX.1-Krea-dev",
        KONTEXT: "black-forest-labs/FLUX.1-Kontext-dev",
    }
    default_flavour = "dev"
    prediction: ClassVar[Prediction] = "flow_matching"

    def __init__(self, source: str | Path, config: TrainingConfig) -> None:
        self.max_text_tokens = _find_text_limit(Path(source).expanduser(), config.model_flavour)
        super().__init__(source, config)
        self.lora_targets = LORA_TARGETS[config.flux_lora_target]
        self.takes_references = config.model_flavour == KONTEXT or _is_kontext(Path(source).expanduser())

    def load_text_encoder(self, dtype: torch.dtype, device: torch.device) -> TextEncoder:
        """Loads CLIP, of which Flux reads one vector per prompt, and T5, of which it reads every token."""
        from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

        from flowtuner.engine.families.parts.encoders import ClipAndT5
        from flowtuner.engine.families.parts.loading import loading, origin_of

        with loading(self, "tokenizer"):
            clip_tokenizer = CLIPTokenizer.from_pretrained(**origin_of(self, "tokenizer"))
        with loading(self, "tokenizer_2"):
            t5_tokenizer = T5Tokenizer.from_pretrained(**origin_of(self, "tokenizer_2"))
        with loading(self, "text_encoder"):
            clip = CLIPTextModel.from_pretrained(**origin_of(self, "text_encoder"), dtype=dtype)
        with loading(self, "text_encoder_2"):
            t5 = T5EncoderModel.from_pretrained(**origin_of(self, "text_encoder_2"), dtype=dtype)
        return ClipAndT5(
            clip_tokenizer, clip.to(device).eval(), t5_tokenizer, t5.to(device).eval(), self.max_text_tokens
        )

    def load_vae(self, dtype: torch.dtype, device: torch.device) -> Vae:
        """Loads the autoencoder, whose latents are shifted as well as scaled."""
        from flowtuner.engine.families.parts.loading import load_kl_vae

        return load_kl_vae(self, dtype, device)

    def load_model(self, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
        """Loads the transformer."""
        from diffusers import FluxTransformer2DModel

        from flowtuner.engine.families.parts.loading import loading, origin_of

        with loading(self, self.component):
            model = FluxTransformer2DModel.from_pretrained(**origin_of(self, self.component), torch_dtype=dtype)
        loaded: torch.nn.Module = model.to(device).eval()
        return loaded

    def add_references(self, text: Rows, references: Sequence[torch.Tensor]) -> Rows:
        """The row with its references as tokens, one beside the other, as Kontext sees them."""
        from flowtuner.engine.families.parts.flux_tokens import stitch

        if not self.takes_references:
            raise ModelError(f"{self.source} draws from text alone: pairs of pictures need model_flavour {KONTEXT}.")
        return text | stitch(references)

    def collate_text(self, rows: Sequence[Rows]) -> Rows:
        """Stacks rows of one length: Flux attends to the padding too, so it belongs to the prompt and is kept."""
        from flowtuner.engine.families.parts.flux_tokens import collate

        return collate(rows)

    def draw_inputs(self, count: int, generator: torch.Generator) -> Rows:
        """With `flux_guidance_mode=random-range`, the guidance that each sample is trained under."""
        import torch

        if self.config.flux_guidance_mode == "constant":
            return {}
        low, high = self.config.flux_guidance_min, self.config.flux_guidance_max
        return {"guidance": low + (high - low) * torch.rand(count, generator=generator, device=generator.device)}

    def predict(self, model: torch.nn.Module, noisy: torch.Tensor, timesteps: torch.Tensor, text: Rows) -> torch.Tensor:
        """The predicted direction from picture to noise."""
        from flowtuner.engine.families.parts.flux_tokens import predict

        guidance = text.get("guidance")
        if guidance is None:
            guidance = timesteps.new_full((len(noisy),), self.config.flux_guidance_value, dtype=noisy.dtype)
        return predict(model, noisy, timesteps, text, guidance)

    def noise_schedule(self) -> NoiseSchedule:
        """Flow matching, shifted and drawn as the options say."""
        from flowtuner.engine.diffusion import FlowSchedule

        return FlowSchedule.from_config(self.config)

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
        """Draws through FluxPipeline, or FluxKontextPipeline; the negative prompt counts with real guidance only."""
        import torch

        from flowtuner.engine.families.parts.flux_tokens import open_pipeline
        from flowtuner.engine.families.parts.loading import load_scheduler, muted_deprecations

        like = next(model.parameters())
        text = self.collate_text(texts)
        refused = self.collate_text([negative] * len(texts))
        pipeline = open_pipeline(self.takes_references, model, vae, load_scheduler(self), text)
        # Kontext would otherwise draw a megapixel, whatever is asked for.
        area = {"max_area": width * height} if self.takes_references else {}
        with muted_deprecations():
            images: list[Image] = pipeline(
                prompt_embeds=text["prompt_embeds"].to(like.device, like.dtype),
                pooled_prompt_embeds=text["pooled_prompt_embeds"].to(like.device, like.dtype),
                negative_prompt_embeds=refused["prompt_embeds"].to(like.device, like.dtype),
                negative_pooled_prompt_embeds=refused["pooled_prompt_embeds"].to(like.device, like.dtype),
                true_cfg_scale=self.config.validation_guidance_real,
                width=width,
                height=height,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],  # on the CPU: the same on any device
                **area,
            ).images
        return images

    def save_pipeline(self, model: torch.nn.Module, target: Path) -> None:
        """Writes the trained transformer beside copies of the source's other parts."""
        from flowtuner.engine.families.parts.loading import copy_other_parts, locate_folder
        from flowtuner.engine.families.parts.weights import save_model

        copy_other_parts(locate_folder(self), target, self.component, model)
        save_model(model, target / self.component)

    @classmethod
    def find_limits(cls, config: TrainingConfig) -> list[Fault]:
        """Sizes that cannot be cut into tokens, and a range of guidance that is none."""
        faults = []
        token = 2 * _find_vae_scale(Path(config.pretrained_model_name_or_path or "").expanduser())
        if config.aspect_bucket_alignment % token:
            problem = f"the model sees pictures in squares of {token} pixels"
            faults.append(
                Fault("aspect_bucket_alignment", config.aspect_bucket_alignment, "", problem, f"multiples of {token}")
            )
        if config.flux_guidance_mode == "random-range" and config.flux_guidance_min > config.flux_guidance_max:
            problem = f"is above flux_guidance_max={config.flux_guidance_max:g}"
            faults.append(Fault("flux_guidance_min", config.flux_guidance_min, "", problem))
        return faults

    @classmethod
    def check_source(cls, path: Path) -> list[str]:
        """Says what is wrong with a local folder."""
        return sources.find_faults(path, PIPELINES, PARTS)

    @classmethod
    def tiny(cls, path: Path, *, seed: int = 0, **variant: Any) -> Path:
        """A model of about two million parameters; variants: kontext, guidance_embeds, layers, text_width,
        text_tokens, vae_channels, words (more whole words for the tokenizers)."""
        import torch

        from flowtuner.engine.families.parts.flux_tokens import build_tiny

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pipeline = build_tiny(variant)
        with atomic_folder(Path(path)) as part:
            pipeline.save_pretrained(part)
        return Path(path)


def _is_kontext(folder: Path) -> bool:
    index = folder / sources.INDEX
    try:
        return index.is_file() and sources.read_class(index) == KONTEXT_PIPELINE
    except ValueError:
        return False  # what is wrong with the file is `check_source`'s to say


def _find_vae_scale(folder: Path) -> int:
    settings = folder / "vae" / "config.json"
    try:
        channels = sources.read_object(settings).get("block_out_channels") if settings.is_file() else None
    except ValueError:
        channels = None
    return 1 << (len(channels) - 1) if isinstance(channels, list) and channels else VAE_SCALE


def _find_text_limit(folder: Path, flavour: str | None) -> int:
    """What the flavour was trained with, and no more than its tokenizer takes."""
    trained = SCHNELL_TEXT_TOKENS if flavour == "schnell" else TEXT_TOKENS
    settings = folder / "tokenizer_2" / "tokenizer_config.json"
    try:
        own = sources.read_object(settings).get("model_max_length") if settings.is_file() else None
    except ValueError:
        return trained
    return min(trained, int(own)) if isinstance(own, int | float) else trained


FAMILY = Flux
