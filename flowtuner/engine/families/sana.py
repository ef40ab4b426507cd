"""Sana: a transformer with linear attention over deep latents, which Gemma reads after an instruction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flowtuner.engine.families.parts.pipeline import SCHEDULER, Part, PipelineFamily, TextPart
from flowtuner.engine.family import Prediction, Rows, TextEncoder, Vae

if TYPE_CHECKING:
    import torch


class Sana(PipelineFamily):
    """Sana 1.0 and 1.5."""

    name = "sana"
    flavours: ClassVar[dict[str, str]] = {
        "sana1.5-4.8b-1024": "Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers",
        "sana1.5-1.6b-1024": "Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers",
        "sana1.0-1.6b-2048": "Efficient-Large-Model/Sana_1600M_2Kpx_BF16_diffusers",
        "sana1.0-1.6b-1024": "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",
        "sana1.0-600m-1024": "Efficient-Large-Model/Sana_600M_1024px_diffusers",
        "sana1.0-600m-512": "Efficient-Large-Model/Sana_600M_512px_diffusers",
    }
    default_flavour = "sana1.5-4.8b-1024"
    prediction: ClassVar[Prediction] = "flow_matching"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    max_text_tokens = 300
    pixels_per_latent = 32
    pipelines = ("SanaPipeline",)
    parts: ClassVar[dict[str, Part]] = {
        "transformer": Part("SanaTransformer2DModel"),
        "vae": Part("AutoencoderDC"),
        "text_encoder": TextPart("Gemma2Model"),
        "tokenizer": TextPart("GemmaTokenizer"),
        "scheduler": SCHEDULER,
    }

    def join_text_parts(self, parts: Mapping[str, Any]) -> TextEncoder:
        """Gemma and its tokenizer, with the pipeline's own instruction."""
        from flowtuner.engine.families.parts.instruction import read_instruction
        from flowtuner.engine.families.parts.language import InstructedText

        return InstructedText(parts["tokenizer"], parts["text_encoder"], self.max_text_tokens, read_instruction())

    def wrap_vae(self, module: Any) -> Vae:
        """A deep autoencoder."""
        from flowtuner.engine.families.parts.autoencoders import DeepVae

        return DeepVae(module)

    def collate_text(self, rows: Sequence[Rows]) -> Rows:
        """Pads to the longest prompt of the batch; with the mask this equals padding to 300 tokens."""
        from flowtuner.engine.families.parts.encoders import pad_rows

        embeds, mask = pad_rows(rows)
        return {"prompt_embeds": embeds, "prompt_attention_mask": mask}

    def text_shapes(self, model: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """Gemma's states."""
        return {"prompt_embeds": (tokens, model.config.caption_channels)}

    def predict(self, model: torch.nn.Module, noisy: torch.Tensor, timesteps: torch.Tensor, text: Rows) -> torch.Tensor:
        """The predicted direction from picture to noise."""
        settings: Any = model.config
        prediction: torch.Tensor = model(
            noisy,
            encoder_hidden_states=text["prompt_embeds"],
            encoder_attention_mask=text["prompt_attention_mask"],
            timestep=timesteps * settings.timestep_scale,
            return_dict=False,
        )[0]
        return prediction

    def drawing_arguments(self, width: int, height: int, guidance: float) -> dict[str, Any]:
        """The size exactly as asked for."""
        exactly = {"use_resolution_binning": False, "clean_caption": False, "negative_prompt": None}
        return super().drawing_arguments(width, height, guidance) | exactly

    @classmethod
    def build_tiny(cls, variant: Mapping[str, Any]) -> Any:
        """A model of about a million parameters; variants: words (more whole words for the tokenizer)."""
        from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel

        from flowtuner.engine.families.parts import tiny_language
        from flowtuner.engine.families.parts.instruction import read_instruction

        tokenizer = tiny_language.build_gemma_tokenizer(
            (*variant.get("words", ()), *tiny_language.split_words(read_instruction()))
        )
        vae = AutoencoderDC(
            latent_channels=8,
            attention_head_dim=8,
            encoder_block_out_channels=(16, 32, 32),
            decoder_block_out_channels=(16, 32, 32),
            encoder_layers_per_block=(1, 1, 1),
            decoder_layers_per_block=(1, 1, 1),
            encoder_qkv_multiscales=((), (), ()),
            decoder_qkv_multiscales=((), (), ()),
            scaling_factor=0.41407,
        )
        transformer = SanaTransformer2DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=4,
            attention_head_dim=32,
            num_layers=2,
            num_cross_attention_heads=4,
            cross_attention_head_dim=32,
            cross_attention_dim=128,
            caption_channels=32,
            sample_size=8,
            timestep_scale=variant.get("timestep_scale", 1.0),
        )
        return SanaPipeline(
            tokenizer=tokenizer,
            text_encoder=tiny_language.build_gemma(tokenizer, 32),
            vae=vae.eval(),
            transformer=transformer.eval(),
            scheduler=DPMSolverMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
            ),
        )


FAMILY = Sana
