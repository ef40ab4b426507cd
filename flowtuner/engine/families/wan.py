"""Wan 2.1: a flow-matching transformer that draws films from text, which UMT5 reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from flowtuner.engine.families.parts import source as sources
from flowtuner.engine.families.parts.pipeline import SCHEDULER, Part, PipelineFamily, TextPart
from flowtuner.engine.family import Drawing, Prediction, Rows, TextEncoder, Vae

if TYPE_CHECKING:
    import torch

    from flowtuner.options import TrainingConfig

TEXT_TOKENS = 512
TINY_TEXT_TOKENS = 32


class Wan(PipelineFamily):
    """Wan 2.1, text to film; a picture counts as a film of one frame."""

    name = "wan"
    flavours: ClassVar[dict[str, str]] = {
        "t2v-480p-1.3b-2.1": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        "t2v-480p-14b-2.1": "Wan-AI/Wan2.1-T2V-14B-Diffusers",
    }
    default_flavour = "t2v-480p-1.3b-2.1"
    licence = "apache-2.0"
    pipeline_tag = "text-to-video"
    prediction: ClassVar[Prediction] = "flow_matching"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    latents_per_token = 2
    frames_per_latent = 4
    usual_frames = 81
    frames_per_second = 16
    pipelines = ("WanPipeline",)
    parts: ClassVar[dict[str, Part]] = {
        "transformer": Part("WanTransformer3DModel"),
        "vae": Part("AutoencoderKLWan"),
        "text_encoder": TextPart("UMT5EncoderModel"),
        "tokenizer": TextPart("AutoTokenizer"),
        "scheduler": SCHEDULER,
    }

    def __init__(self, source: str | Path, config: TrainingConfig) -> None:
        self.max_text_tokens = sources.find_text_limit(Path(source).expanduser() / "tokenizer", TEXT_TOKENS)
        super().__init__(source, config)

    def join_text_parts(self, parts: Mapping[str, Any]) -> TextEncoder:
        """UMT5 and its tokenizer."""
        from flowtuner.engine.families.parts.encoders import UMT5Text

        return UMT5Text(parts["tokenizer"], parts["text_encoder"], self.max_text_tokens)

    def wrap_vae(self, module: Any) -> Vae:
        """An autoencoder of films, and of pictures as films of one frame."""
        from flowtuner.engine.families.parts.autoencoders import FilmVae

        return FilmVae(module, module.config.scale_factor_spatial)

    def collate_text(self, rows: Sequence[Rows]) -> Rows:
        """Pads with zeros to the model's own length: it attends to them, so all of them belong to the prompt."""
        import torch

        embeds = [row["prompt_embeds"] for row in rows]
        padded = [torch.nn.functional.pad(one, (0, 0, 0, self.max_text_tokens - len(one))) for one in embeds]
        return {"prompt_embeds": torch.stack(padded)}

    def text_shapes(self, model: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """UMT5's states."""
        return {"prompt_embeds": (tokens, model.config.text_dim)}

    def predict(self, model: torch.nn.Module, noisy: torch.Tensor, timesteps: torch.Tensor, text: Rows) -> torch.Tensor:
        """The predicted direction from film to noise."""
        prediction: torch.Tensor = model(
            hidden_states=noisy,
            timestep=timesteps,
            encoder_hidden_states=text["prompt_embeds"],
            return_dict=False,
        )[0]
        return prediction

    def drawing_arguments(self, width: int, height: int, guidance: float) -> dict[str, Any]:
        """Size, guidance and length."""
        frames = self.config.validation_num_video_frames or self.usual_frames
        return super().drawing_arguments(width, height, guidance) | {"num_frames": frames, "output_type": "pil"}

    def read_drawings(self, answer: Any) -> list[Drawing]:
        """One film per prompt."""
        return [tuple(film) for film in answer.frames]

    @classmethod
    def check_source(cls, path: Path) -> list[str]:
        """Says what is wrong with a local folder; Wan 2.2 has a second transformer, which would stay untrained."""
        faults = super().check_source(path)
        if not faults and sources.is_listed(sources.read_object(path / sources.INDEX), "transformer_2"):
            return [f"{path} holds two transformers (Wan 2.2), this family trains Wan 2.1"]
        return faults

    @classmethod
    def build_tiny(cls, variant: Mapping[str, Any]) -> Any:
        """A model of about a million parameters; variants: words (more whole words for the tokenizer)."""
        from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

        from flowtuner.engine.families.parts import tiny

        tokenizer = tiny.build_t5_tokenizer(variant.get("words", ()), TINY_TEXT_TOKENS)
        vae = AutoencoderKLWan(
            base_dim=8,
            z_dim=16,
            dim_mult=[1, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[True, True],
            scale_factor_temporal=4,
            scale_factor_spatial=4,
        )
        transformer = WanTransformer3DModel(
            num_attention_heads=4,
            attention_head_dim=24,
            text_dim=32,
            freq_dim=32,
            ffn_dim=192,
            num_layers=3,
        )
        return WanPipeline(
            tokenizer=tokenizer,
            text_encoder=tiny.build_umt5(len(tokenizer), 32),
            vae=vae.eval(),
            transformer=transformer.eval(),
            scheduler=UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000
            ),
        )


FAMILY = Wan
