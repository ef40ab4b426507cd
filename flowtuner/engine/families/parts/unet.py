"""What the families around a U-Net share: latents of four channels, CLIP text, epsilon or v_prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flowtuner.engine.families.parts.pipeline import PipelineFamily
from flowtuner.engine.family import Prediction, Rows, Vae
from flowtuner.errors import Fault, ModelError

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from flowtuner.engine.diffusion import Schedule
    from flowtuner.options import TrainingConfig

CLIP_TOKENS = 77


class UNetFamily(PipelineFamily):
    """A U-Net; which text it reads and which pipeline draws with it is each family's own."""

    component = "unet"
    prediction: ClassVar[Prediction] = "epsilon"  # v_prediction where the source's scheduler says so
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    max_text_tokens = CLIP_TOKENS
    takes_clip_skip = True

    def __init__(self, source: str | Path, config: TrainingConfig) -> None:
        super().__init__(source, config)
        self.takes_references = config.controlnet

    def complete_model(self, model: torch.nn.Module) -> torch.nn.Module:
        """The U-Net; with a ControlNet beside it if one is to be trained."""
        from flowtuner.engine.families.parts.controlnet import load_controlled

        return load_controlled(self, model) if self.config.controlnet else model

    def add_references(self, text: Rows, references: Sequence[torch.Tensor]) -> Rows:
        """The row with the pixels that the ControlNet holds on to."""
        from flowtuner.engine.families.parts.controlnet import CONTROL, as_control

        if len(references) > 1:
            problem = f"a ControlNet sees one picture, and {len(references)} data sets are combined for it"
            advice = "Set conditioning_multidataset_sampling to random, or name one set."
            raise ModelError(f"{problem}. {advice}")
        return text | {CONTROL: as_control(references[0])}

    def open_pipeline(self, model: torch.nn.Module, vae: Vae, texts: Sequence[Rows]) -> Any:
        """The pipeline of the U-Net alone, or that of a U-Net with its ControlNet."""
        if not self.config.controlnet:
            return super().open_pipeline(model, vae, texts)
        import diffusers

        from flowtuner.engine.families.parts.loading import load_scheduler

        parts = dict.fromkeys(self.parts) | {"unet": model.base, "controlnet": model.controlnet, "vae": vae.module}
        pipeline = getattr(diffusers, self.control_pipeline)
        return pipeline(**parts | {"scheduler": load_scheduler(self)}, **self.pipeline_options)

    def prompt_arguments(self, texts: Sequence[Rows], negative: Rows) -> dict[str, Any]:
        """The text, and the picture that a ControlNet holds on to."""
        import torch

        from flowtuner.engine.families.parts.controlnet import CONTROL

        plain = [{name: tensor for name, tensor in row.items() if name != CONTROL} for row in texts]
        arguments = super().prompt_arguments(plain, negative)
        if CONTROL in texts[0]:
            arguments["image"] = torch.stack([row[CONTROL] for row in texts])
        return arguments

    def noise_schedule(self) -> Schedule:
        """The schedule in the source's scheduler configuration."""
        from flowtuner.engine.diffusion import Schedule
        from flowtuner.engine.families.parts.loading import load_scheduler

        return Schedule.from_scheduler(load_scheduler(self))

    @classmethod
    def find_limits(cls, config: TrainingConfig) -> list[Fault]:
        """CLIP has no positions beyond its own length."""
        faults = super().find_limits(config)
        if not config.tokenizer_max_length or config.tokenizer_max_length <= CLIP_TOKENS:
            return faults
        problem = f"CLIP reads {CLIP_TOKENS} tokens at most"
        return [*faults, Fault("tokenizer_max_length", config.tokenizer_max_length, "", problem, f"1 to {CLIP_TOKENS}")]


def control_of(text: Rows) -> Rows:
    """What a model with a ControlNet is called with besides its text."""
    return {"control": text["reference_control"]} if "reference_control" in text else {}


def settings_of(model: Any) -> Any:
    """The U-Net's own configuration, also where a ControlNet stands beside it."""
    return getattr(model, "base", model).config


def build_unet(cross_width: int, **extra: Any) -> Any:
    """A U-Net of about a million parameters, with attention at both levels."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=cross_width,
        attention_head_dim=4,
        norm_num_groups=16,
        **extra,
    ).eval()
