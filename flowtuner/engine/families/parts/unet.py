"""What the families around a U-Net share: latents of four channels, CLIP text, epsilon or v_prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from flowtuner.engine.family import Family, Prediction, Rows, Vae
from flowtuner.errors import Fault

if TYPE_CHECKING:
    import torch

    from flowtuner.engine.diffusion import Schedule
    from flowtuner.options import TrainingConfig

CLIP_TOKENS = 77


class UNetFamily(Family):
    """A U-Net; which text it reads and which pipeline draws with it is each family's own."""

    component = "unet"
    prediction: ClassVar[Prediction] = "epsilon"  # v_prediction where the source's scheduler says so
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    max_text_tokens = CLIP_TOKENS
    takes_clip_skip = True

    def load_vae(self, dtype: torch.dtype, device: torch.device) -> Vae:
        """Loads the autoencoder."""
        from flowtuner.engine.families.parts.loading import load_kl_vae

        return load_kl_vae(self, dtype, device)

    def load_model(self, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
        """Loads the U-Net."""
        from diffusers import UNet2DConditionModel

        from flowtuner.engine.families.parts.loading import loading, origin_of

        with loading(self, self.component):
            model = UNet2DConditionModel.from_pretrained(**origin_of(self, self.component), torch_dtype=dtype)
        loaded: torch.nn.Module = model.to(device).eval()
        return loaded

    def collate_text(self, rows: Sequence[Rows]) -> Rows:
        """Stacks rows of one length: a U-Net attends to the padding too, so it belongs to the prompt and is kept."""
        import torch

        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def noise_schedule(self) -> Schedule:
        """The schedule in the source's scheduler configuration."""
        from flowtuner.engine.diffusion import Schedule
        from flowtuner.engine.families.parts.loading import load_scheduler

        return Schedule.from_scheduler(load_scheduler(self))

    def save_pipeline(self, model: torch.nn.Module, target: Path) -> None:
        """Writes the trained U-Net beside copies of the source's other parts."""
        from flowtuner.engine.families.parts.loading import copy_other_parts, locate_folder
        from flowtuner.engine.families.parts.weights import save_model

        copy_other_parts(locate_folder(self), target, self.component, model)
        save_model(model, target / self.component)

    @classmethod
    def find_limits(cls, config: TrainingConfig) -> list[Fault]:
        """CLIP has no positions beyond its own length."""
        if not config.tokenizer_max_length or config.tokenizer_max_length <= CLIP_TOKENS:
            return []
        problem = f"CLIP reads {CLIP_TOKENS} tokens at most"
        return [Fault("tokenizer_max_length", config.tokenizer_max_length, "", problem, f"1 to {CLIP_TOKENS}")]


def load_clip(family: Family, number: str, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    """A tokenizer and its encoder; `number` is empty for the first ones and `_2` for the second."""
    import transformers

    from flowtuner.engine.families.parts.loading import loading, origin_of

    model_class = transformers.CLIPTextModelWithProjection if number else transformers.CLIPTextModel
    with loading(family, f"tokenizer{number}"):
        tokenizer = transformers.CLIPTokenizer.from_pretrained(**origin_of(family, f"tokenizer{number}"))
    with loading(family, f"text_encoder{number}"):
        model = model_class.from_pretrained(**origin_of(family, f"text_encoder{number}"), dtype=dtype)
    return tokenizer, model.to(device).eval()


def render_with(pipeline: Any, embeds: Rows, seeds: Sequence[int], **size: Any) -> Any:
    """Draws a batch; `embeds` are the pipeline's own arguments."""
    import torch

    from flowtuner.engine.families.parts.loading import muted_deprecations

    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]  # on the CPU: the same on any device
    with muted_deprecations():
        return pipeline(**embeds, generator=generators, **size).images


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
