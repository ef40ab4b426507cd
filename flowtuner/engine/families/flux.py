"""Flux.1: a flow-matching transformer with CLIP and T5 text; Kontext is the flavour that edits a given picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from flowtuner.engine.families.parts import source as sources
from flowtuner.engine.families.parts.pipeline import SCHEDULER, Part, PipelineFamily, TextPart
from flowtuner.engine.family import Prediction, Rows, TextEncoder, Vae
from flowtuner.errors import Fault, ModelError

if TYPE_CHECKING:
    import torch

    from flowtuner.options import TrainingConfig

KONTEXT = "kontext"
KONTEXT_PIPELINE = "FluxKontextPipeline"
TEXT_TOKENS = 512
SCHNELL_TEXT_TOKENS = 256
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


class Flux(PipelineFamily):
    """Flux.1 in all its flavours; whether guidance is fed in, the model's own configuration says."""

    name = "flux"
    flavours: ClassVar[dict[str, str]] = {
        "dev": "black-forest-labs/FLUX.1-dev",
        "schnell": "black-forest-labs/FLUX.1-schnell",
        "krea": "black-forest-labs/FLUX.1-Krea-dev",
        KONTEXT: "black-forest-labs/FLUX.1-Kontext-dev",
    }
    default_flavour = "dev"
    latents_per_token = 2
    pipelines = ("FluxPipeline", KONTEXT_PIPELINE)
    parts: ClassVar[dict[str, Part]] = {
        "transformer": Part("FluxTransformer2DModel"),
        "vae": Part("AutoencoderKL"),
        "text_encoder": TextPart("CLIPTextModel"),
        "text_encoder_2": TextPart("T5EncoderModel"),
        "tokenizer": TextPart("CLIPTokenizer"),
        "tokenizer_2": TextPart("T5Tokenizer"),
        "scheduler": SCHEDULER,
    }
    prediction: ClassVar[Prediction] = "flow_matching"

    def __init__(self, source: str | Path, config: TrainingConfig) -> None:
        trained = SCHNELL_TEXT_TOKENS if config.model_flavour == "schnell" else TEXT_TOKENS
        self.max_text_tokens = sources.find_text_limit(Path(source).expanduser() / "tokenizer_2", trained)
        super().__init__(source, config)
        self.lora_targets = LORA_TARGETS[config.flux_lora_target]
        self.architecture = f"flux-1-{config.model_flavour or self.default_flavour}"
        self.takes_references = config.model_flavour == KONTEXT or _is_kontext(Path(source).expanduser())

    def join_text_parts(self, parts: Mapping[str, Any]) -> TextEncoder:
        """CLIP, of which Flux reads one vector per prompt, and T5, of which it reads every token."""
        from flowtuner.engine.families.parts.encoders import ClipAndT5

        clip, t5 = ((parts[f"tokenizer{number}"], parts[f"text_encoder{number}"]) for number in ("", "_2"))
        return ClipAndT5(*clip, *t5, self.max_text_tokens)

    def add_references(self, text: Rows, references: Sequence[torch.Tensor]) -> Rows:
        """The row with its references as tokens, one beside the other, as Kontext sees them."""
        from flowtuner.engine.families.parts.flux_tokens import stitch

        if not self.takes_references:
            raise ModelError(f"{self.source} draws from text alone: pairs of pictures need model_flavour {KONTEXT}.")
        return text | stitch(references)

    def draw_inputs(self, count: int, generator: torch.Generator) -> Rows:
        """With `flux_guidance_mode=random-range`, the guidance that each sample is trained under."""
        import torch

        if self.config.flux_guidance_mode == "constant":
            return {}
        low, high = self.config.flux_guidance_min, self.config.flux_guidance_max
        return {"guidance": low + (high - low) * torch.rand(count, generator=generator, device=generator.device)}

    def text_shapes(self, model: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """T5's states, padded to the longest prompt, and CLIP's summary."""
        config = model.config
        pooled = (config.pooled_projection_dim,)
        return {"prompt_embeds": (self.max_text_tokens, config.joint_attention_dim), "pooled_prompt_embeds": pooled}

    def predict(self, model: torch.nn.Module, noisy: torch.Tensor, timesteps: torch.Tensor, text: Rows) -> torch.Tensor:
        """The predicted direction from picture to noise."""
        from flowtuner.engine.families.parts.flux_tokens import predict

        guidance = text.get("guidance")
        if guidance is None:
            guidance = timesteps.new_full((len(noisy),), self.config.flux_guidance_value, dtype=noisy.dtype)
        return predict(model, noisy, timesteps, text, guidance)

    def choose_pipeline(self, model: Any, texts: Sequence[Rows]) -> Any:
        """FluxPipeline, or FluxKontextPipeline for a model that edits."""
        from flowtuner.engine.families.parts import flux_tokens

        return flux_tokens.choose_pipeline(self.takes_references, texts[0])

    def open_pipeline(self, model: torch.nn.Module, vae: Vae, texts: Sequence[Rows]) -> Any:
        """The pipeline, with the references that its pictures are drawn after."""
        from flowtuner.engine.families.parts.flux_tokens import REFERENCE_TOKENS

        pipeline = super().open_pipeline(model, vae, texts)
        if REFERENCE_TOKENS in texts[0]:
            pipeline.references = self.collate_text(texts)
        return pipeline

    def prompt_arguments(self, texts: Sequence[Rows], negative: Rows) -> dict[str, Any]:
        """The negative prompt counts with real guidance only."""
        text, refused = self.collate_text(texts), self.collate_text([negative] * len(texts))
        names = ("prompt_embeds", "pooled_prompt_embeds")
        return {name: text[name] for name in names} | {f"negative_{name}": refused[name] for name in names}

    def drawing_arguments(self, width: int, height: int, guidance: float) -> dict[str, Any]:
        """Size and both kinds of guidance; Kontext would otherwise draw a megapixel, whatever is asked for."""
        area = {"max_area": width * height} if self.takes_references else {}
        real = {"true_cfg_scale": self.config.validation_guidance_real}
        return super().drawing_arguments(width, height, guidance) | real | area

    @classmethod
    def find_limits(cls, config: TrainingConfig) -> list[Fault]:
        """Sizes that cannot be cut into tokens, and a range of guidance that is none."""
        faults = super().find_limits(config)
        if config.flux_guidance_mode == "random-range" and config.flux_guidance_min > config.flux_guidance_max:
            problem = f"is above flux_guidance_max={config.flux_guidance_max:g}"
            faults.append(Fault("flux_guidance_min", config.flux_guidance_min, "", problem))
        return faults

    @classmethod
    def build_tiny(cls, variant: Mapping[str, Any]) -> Any:
        """A model of about two million parameters; variants: kontext, guidance_embeds, layers, text_width,
        text_tokens, vae_channels, words (more whole words for the tokenizers)."""
        from flowtuner.engine.families.parts.flux_tokens import build_tiny

        return build_tiny(variant)


def _is_kontext(folder: Path) -> bool:
    index = folder / sources.INDEX
    try:
        return index.is_file() and sources.read_class(index) == KONTEXT_PIPELINE
    except ValueError:
        return False  # what is wrong with the file is `check_source`'s to say


FAMILY = Flux
