"""Stable Diffusion 3 and 3.5: a flow-matching transformer that reads two CLIPs and, where it is there, T5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from flowtuner.engine.families.parts import source as sources
from flowtuner.engine.families.parts.pipeline import SCHEDULER, Part, PipelineFamily, TextPart
from flowtuner.engine.family import Prediction, Rows, TextEncoder

if TYPE_CHECKING:
    import torch

    from flowtuner.options import TrainingConfig

CLIP_TOKENS = 77
TEXT_TOKENS = 256
TINY_TEXT_TOKENS = 24


class StableDiffusion3(PipelineFamily):
    """Stable Diffusion 3 and 3.5; without T5 its part of the text is zeros, as the pipeline has it."""

    name = "sd3"
    flavours: ClassVar[dict[str, str]] = {
        "medium": "stabilityai/stable-diffusion-3.5-medium",
        "large": "stabilityai/stable-diffusion-3.5-large",
        "large-turbo": "stabilityai/stable-diffusion-3.5-large-turbo",
        "medium-3.0": "stabilityai/stable-diffusion-3-medium-diffusers",
    }
    default_flavour = "medium"
    prediction: ClassVar[Prediction] = "flow_matching"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    takes_clip_skip = True
    latents_per_token = 2
    pipelines = ("StableDiffusion3Pipeline",)
    parts: ClassVar[dict[str, Part]] = {
        "transformer": Part("SD3Transformer2DModel"),
        "vae": Part("AutoencoderKL"),
        "text_encoder": TextPart("CLIPTextModelWithProjection"),
        "text_encoder_2": TextPart("CLIPTextModelWithProjection"),
        "text_encoder_3": TextPart("T5EncoderModel", is_optional=True),
        "tokenizer": TextPart("CLIPTokenizer"),
        "tokenizer_2": TextPart("CLIPTokenizer"),
        "tokenizer_3": TextPart("T5Tokenizer", is_optional=True),
        "scheduler": SCHEDULER,
    }

    def __init__(self, source: str | Path, config: TrainingConfig) -> None:
        self.max_text_tokens = sources.find_text_limit(Path(source).expanduser() / "tokenizer_3", TEXT_TOKENS)
        super().__init__(source, config)

    def join_text_parts(self, parts: Mapping[str, Any]) -> TextEncoder:
        """Both CLIPs, and T5 behind them."""
        from flowtuner.engine.families.parts.clip import TwoClips
        from flowtuner.engine.families.parts.encoders import ClipsAndT5
        from flowtuner.engine.families.parts.loading import read_settings

        pairs = [(parts[f"tokenizer{number}"], parts[f"text_encoder{number}"]) for number in ("", "_2")]
        clips = TwoClips(pairs, parts["tokenizer"].model_max_length, self.config.clip_skip or 0)
        t5 = (parts["tokenizer_3"], parts["text_encoder_3"]) if parts["text_encoder_3"] else None
        width = read_settings(self, self.component)["joint_attention_dim"]
        return ClipsAndT5(clips, t5, width, self.max_text_tokens)

    def text_shapes(self, model: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """The states of CLIP and T5, both padded, and the summaries of both CLIPs."""
        config = model.config
        states = (CLIP_TOKENS + self.max_text_tokens, config.joint_attention_dim)
        return {"prompt_embeds": states, "pooled_prompt_embeds": (config.pooled_projection_dim,)}

    def predict(self, model: torch.nn.Module, noisy: torch.Tensor, timesteps: torch.Tensor, text: Rows) -> torch.Tensor:
        """The predicted direction from picture to noise."""
        prediction: torch.Tensor = model(
            hidden_states=noisy,
            timestep=timesteps,
            encoder_hidden_states=text["prompt_embeds"],
            pooled_projections=text["pooled_prompt_embeds"],
            return_dict=False,
        )[0]
        return prediction

    @classmethod
    def build_tiny(cls, variant: Mapping[str, Any]) -> Any:
        """A model of about a million parameters; variants: t5 (False leaves it out), text_tokens, words."""
        from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

        from flowtuner.engine.families.parts import tiny

        words, width = variant.get("words", ()), 64
        tokenizers = [tiny.build_clip_tokenizer(words) for _ in range(2)]
        clips = [tiny.build_clip(tokenizer, 16, is_projected=True) for tokenizer in tokenizers]
        t5_tokenizer = tiny.build_t5_tokenizer(words, variant.get("text_tokens", TINY_TEXT_TOKENS))
        transformer = SD3Transformer2DModel(
            sample_size=16,
            num_layers=2,
            attention_head_dim=32,
            num_attention_heads=4,
            joint_attention_dim=width,
            caption_projection_dim=4 * 32,
            pooled_projection_dim=2 * 16,
            pos_embed_max_size=32,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        )
        has_t5 = variant.get("t5", True)
        return StableDiffusion3Pipeline(
            transformer=tiny.open_gates(transformer),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=tiny.build_vae((16, 32, 32), 16, scaling_factor=1.5305, shift_factor=0.0609, **tiny.NO_QUANT_CONVS),
            text_encoder=clips[0],
            tokenizer=tokenizers[0],
            text_encoder_2=clips[1],
            tokenizer_2=tokenizers[1],
            text_encoder_3=tiny.build_t5(len(t5_tokenizer), width) if has_t5 else None,
            tokenizer_3=t5_tokenizer if has_t5 else None,
        )


FAMILY = StableDiffusion3
