"""Which dtype each part of a run works in, decided once from the options and the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from flowtuner.engine.formats import BF16_OPTIMIZER, find_precision_faults, is_quantised
from flowtuner.engine.quantize import PLAIN_DTYPES
from flowtuner.errors import ConfigError

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig

MIXED_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
KAHAN_OPTIMIZERS = "optimi-"


@dataclass(frozen=True)
class Precision:
    """The dtypes of a run."""

    base: torch.dtype
    """What the model is loaded in: for a full fine-tune these are the weights that are trained."""

    adapter: torch.dtype
    """What adapter weights are kept in."""

    autocast: torch.dtype | None
    """What matrix products are computed in, where it differs from the weights."""


def resolve_precision(config: TrainingConfig, device: torch.device) -> Precision:
    """Trained weights are float32 unless the optimizer loses nothing in fewer bits; LoRA may freeze a small base."""
    if faults := list(find_precision_faults(config, has_device=lambda: device.type == "cuda")):
        raise ConfigError(faults)
    mixed = _mixed_dtype(config, device)
    stored = PLAIN_DTYPES.get(config.base_model_precision)
    if config.optimizer == BF16_OPTIMIZER:
        base = torch.bfloat16 if config.model_type == "full" or stored is None else stored
        return Precision(base, torch.bfloat16, None if base is torch.bfloat16 else mixed)
    if config.model_type == "full":
        if config.optimizer.startswith(KAHAN_OPTIMIZERS) and (stored or mixed) is torch.bfloat16:
            return Precision(torch.bfloat16, torch.bfloat16, None)
        # An ordinary optimizer loses small updates in 16-bit weights: these stay in float32, products may not.
        is_asked_for = config.mixed_precision is None and stored in (torch.bfloat16, torch.float16)
        return Precision(torch.float32, torch.float32, torch.bfloat16 if is_asked_for else mixed)
    if is_quantised(config):
        return _over_quantised_base(config, mixed)
    base = stored or mixed or torch.float32
    # LyCORIS computes with weights as they stand; peft brings what it gets to its own dtype.
    needs_cast = config.lora_type == "lycoris" and base is not torch.float32
    return Precision(base, torch.float32, mixed or (base if needs_cast else None))


def _over_quantised_base(config: TrainingConfig, mixed: torch.dtype | None) -> Precision:
    is_exact_in_bf16 = config.optimizer.startswith(KAHAN_OPTIMIZERS) and mixed is not torch.float16
    if config.base_model_default_dtype == "bf16" and is_exact_in_bf16:
        return Precision(torch.bfloat16, torch.bfloat16, None)
    return Precision(mixed or torch.float32, torch.float32, mixed)


def _mixed_dtype(config: TrainingConfig, device: torch.device) -> torch.dtype | None:
    if config.mixed_precision is None:
        return None if device.type == "cpu" else torch.bfloat16
    return MIXED_DTYPES.get(config.mixed_precision)
