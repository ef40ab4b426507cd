"""What the families around a U-Net share: latents of four channels, CLIP text, epsilon or v_prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from flowtuner.engine.families.parts.pipeline import PipelineFamily
from flowtuner.engine.family import Prediction
from flowtuner.errors import Fault

if TYPE_CHECKING:
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
