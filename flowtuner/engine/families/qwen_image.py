"""Qwen-Image: a flow-matching transformer over packed latents of a film's autoencoder, which Qwen2.5-VL reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flowtuner.engine.families.parts.pipeline import SCHEDULER, Part, PipelineFamily, TextPart
from flowtuner.engine.family import Prediction, Rows, TextEncoder, Vae

if TYPE_CHECKING:
    import torch

TIMESTEPS = 1000
MASK = "prompt_embeds_mask"
# The words around a prompt that the model was trained with, and how many tokens of them come before it.
TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
TEMPLATE_TOKENS = 34


class QwenImage(PipelineFamily):
    """Qwen-Image, drawing from text."""

    name = "qwen_image"
    flavours: ClassVar[dict[str, str]] = {"v1.0": "Qwen/Qwen-Image"}
    default_flavour = "v1.0"
    licence = "apache-2.0"
    prediction: ClassVar[Prediction] = "flow_matching"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    max_text_tokens = 512
    latents_per_token = 2
    pipelines = ("QwenImagePipeline",)
    parts: ClassVar[dict[str, Part]] = {
        "transformer": Part("QwenImageTransformer2DModel"),
        "vae": Part("AutoencoderKLQwenImage"),
        "text_encoder": TextPart("Qwen2_5_VLForConditionalGeneration"),
        "tokenizer": TextPart("Qwen2Tokenizer"),
        "scheduler": SCHEDULER,
    }

    def join_text_parts(self, parts: Mapping[str, Any]) -> TextEncoder:
        """Qwen2.5-VL and its tokenizer."""
        from flowtuner.engine.families.parts.language import TemplateText

        encoder = parts["text_encoder"]
        return TemplateText(parts["tokenizer"], encoder, self.max_text_tokens, TEMPLATE, TEMPLATE_TOKENS)

    def wrap_vae(self, module: Any) -> Vae:
        """A film's autoencoder that is shown one picture."""
        from flowtuner.engine.families.parts.autoencoders import StillVae

        return StillVae(module, 2 ** len(module.config.temperal_downsample))

    def collate_text(self, rows: Sequence[Rows]) -> Rows:
        """Pads to the longest prompt of the batch, masked where it needs to be: attention without a mask is faster."""
        from flowtuner.engine.families.parts.encoders import pad_rows

        embeds, mask = pad_rows(rows)
        return {"prompt_embeds": embeds} | ({} if bool(mask.all()) else {MASK: mask})

    def text_shapes(self, model: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """The states of Qwen2.5-VL."""
        return {"prompt_embeds": (tokens, model.config.joint_attention_dim)}

    def predict(self, model: torch.nn.Module, noisy: torch.Tensor, timesteps: torch.Tensor, text: Rows) -> torch.Tensor:
        """The predicted direction from picture to noise."""
        from flowtuner.engine.families.parts.packing import pack, unpack

        count, _, height, width = noisy.shape
        tokens: torch.Tensor = model(
            hidden_states=pack(noisy),
            timestep=timesteps / TIMESTEPS,
            encoder_hidden_states=text["prompt_embeds"],
            encoder_hidden_states_mask=text.get(MASK),
            img_shapes=[[(1, height // 2, width // 2)]] * count,
            return_dict=False,
        )[0]
        return unpack(tokens, height, width)

    def prompt_arguments(self, texts: Sequence[Rows], negative: Rows) -> dict[str, Any]:
        """The prompts with their masks; both kinds are of their own length."""
        from flowtuner.engine.families.parts.encoders import pad_rows

        embeds, mask = pad_rows(texts)
        refused, refused_mask = pad_rows([negative] * len(texts))
        return {
            "prompt_embeds": embeds,
            MASK: mask,
            "negative_prompt_embeds": refused,
            f"negative_{MASK}": refused_mask,
        }

    def drawing_arguments(self, width: int, height: int, guidance: float) -> dict[str, Any]:
        """Guidance against the negative prompt: the model takes no other."""
        return {"width": width, "height": height, "true_cfg_scale": guidance}

    @classmethod
    def build_tiny(cls, variant: Mapping[str, Any]) -> Any:
        """A model of about a million parameters; variants: words (more whole words for the tokenizer)."""
        from diffusers import (
            AutoencoderKLQwenImage,
            FlowMatchEulerDiscreteScheduler,
            QwenImagePipeline,
            QwenImageTransformer2DModel,
        )

        from flowtuner.engine.families.parts import tiny, tiny_language

        tokenizer = tiny_language.build_qwen_tokenizer(
            (*variant.get("words", ()), *tiny_language.split_words(TEMPLATE))
        )
        vae = AutoencoderKLQwenImage(
            base_dim=8, z_dim=16, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[False, True]
        )
        transformer = QwenImageTransformer2DModel(
            num_layers=2,
            attention_head_dim=32,
            num_attention_heads=4,
            joint_attention_dim=32,
            axes_dims_rope=(8, 12, 12),
        )
        return QwenImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=1.0, shift_terminal=0.02),
            vae=vae.eval(),
            text_encoder=tiny_language.build_qwen_vl(tokenizer, 32),
            tokenizer=tokenizer,
            transformer=tiny.open_gates(transformer),
        )


FAMILY = QwenImage
