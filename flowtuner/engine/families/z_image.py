"""Z-Image: a flow-matching transformer over one sequence of picture and text, which Qwen3 reads as a chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flowtuner.engine.families.parts.pipeline import SCHEDULER, Part, PipelineFamily, TextPart
from flowtuner.engine.family import Prediction, Rows, TextEncoder

if TYPE_CHECKING:
    import torch

TIMESTEPS = 1000


class ZImage(PipelineFamily):
    """Z-Image; it counts time from noise to picture, and predicts the direction of that way."""

    name = "z_image"
    flavours: ClassVar[dict[str, str]] = {
        "base": "Tongyi-MAI/Z-Image",
        "turbo": "Tongyi-MAI/Z-Image-Turbo",
    }
    default_flavour = "turbo"
    licence = "apache-2.0"
    prediction: ClassVar[Prediction] = "flow_matching"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    max_text_tokens = 512
    latents_per_token = 2
    pipelines = ("ZImagePipeline",)
    parts: ClassVar[dict[str, Part]] = {
        "transformer": Part("ZImageTransformer2DModel"),
        "vae": Part("AutoencoderKL"),
        "text_encoder": TextPart("AutoModel"),  # sources name Qwen3Model or Qwen3ForCausalLM
        "tokenizer": TextPart("AutoTokenizer"),
        "scheduler": SCHEDULER,
    }

    def join_text_parts(self, parts: Mapping[str, Any]) -> TextEncoder:
        """Qwen3 and its tokenizer."""
        from flowtuner.engine.families.parts.language import ChatText

        return ChatText(parts["tokenizer"], parts["text_encoder"], self.max_text_tokens)

    def collate_text(self, rows: Sequence[Rows]) -> Rows:
        """Pads to the longest prompt of the batch; what is padding is cut off again before the model."""
        from flowtuner.engine.families.parts.encoders import pad_rows

        embeds, mask = pad_rows(rows)
        return {"prompt_embeds": embeds, "prompt_lengths": mask.sum(dim=1)}

    def text_shapes(self, model: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """The states of Qwen3."""
        return {"prompt_embeds": (tokens, model.config.cap_feat_dim)}

    def predict(self, model: torch.nn.Module, noisy: torch.Tensor, timesteps: torch.Tensor, text: Rows) -> torch.Tensor:
        """The predicted direction from picture to noise: the model's own answer the other way round."""
        import torch

        answers = model(
            list(noisy[:, :, None].unbind(0)),
            (TIMESTEPS - timesteps) / TIMESTEPS,
            _cut(text),
            return_dict=False,
        )[0]
        return -torch.stack(answers)[:, :, 0]

    def prompt_arguments(self, texts: Sequence[Rows], negative: Rows) -> dict[str, Any]:
        """Prompts of their own lengths."""
        return {
            "prompt_embeds": [row["prompt_embeds"] for row in texts],
            "negative_prompt_embeds": [negative["prompt_embeds"]] * len(texts),
        }

    @classmethod
    def build_tiny(cls, variant: Mapping[str, Any]) -> Any:
        """A model of about a million parameters; variants: words (more whole words for the tokenizer)."""
        from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel

        from flowtuner.engine.families.parts import tiny, tiny_language

        tokenizer = tiny_language.build_qwen_tokenizer(variant.get("words", ()))
        transformer = ZImageTransformer2DModel(
            dim=128,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=4,
            n_kv_heads=4,
            cap_feat_dim=32,
            axes_dims=[8, 12, 12],
            axes_lens=[1024, 64, 64],
        )
        return ZImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=tiny.build_vae((16, 32, 32), 16, scaling_factor=0.3611, shift_factor=0.1159, **tiny.NO_QUANT_CONVS),
            text_encoder=tiny_language.build_qwen3(tokenizer, 32),
            tokenizer=tokenizer,
            transformer=tiny.fill_empty(transformer, "x_pad_token", "cap_pad_token"),
        )


def _cut(text: Rows) -> list[torch.Tensor]:
    lengths = text["prompt_lengths"].tolist()
    return [embeds[:length] for embeds, length in zip(text["prompt_embeds"], lengths, strict=True)]


FAMILY = ZImage
