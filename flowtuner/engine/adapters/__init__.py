"""What of a model is trained: all of it, or an adapter; how that part is attached, saved and read back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowtuner.engine.adapters import controlnet, full, lora, lycoris
from flowtuner.engine.adapters.part import TrainedPart
from flowtuner.engine.limits import find_adapter_faults
from flowtuner.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from flowtuner.engine.family import Family
    from flowtuner.engine.precision import Precision
    from flowtuner.options import TrainingConfig

__all__ = ["TrainedPart", "attach"]


def attach(model: torch.nn.Module, config: TrainingConfig, family: Family, precision: Precision) -> TrainedPart:
    """Makes the part trainable that the options ask for, and turns gradient checkpointing on where it is wanted."""
    if faults := list(find_adapter_faults(config)):
        raise ConfigError(faults)
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()  # type: ignore[operator]  # diffusers models have it
    if config.controlnet:
        return controlnet.attach(model, family)
    if config.model_type == "full":
        return full.attach(model, family)
    if config.lora_type == "lycoris":
        return lycoris.attach(model, config, family, precision)
    return lora.attach(model, config, family, precision)
