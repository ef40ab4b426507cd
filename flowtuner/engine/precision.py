"""Which dtype each part of a run works in, decided once from the options and the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from flowtuner.engine.formats import choose_formats, find_precision_faults
from flowtuner.errors import ConfigError

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig


@dataclass(frozen=True)
class Precision:
    """The dtypes of a run: `Formats` as torch knows them."""

    base: torch.dtype
    adapter: torch.dtype
    autocast: torch.dtype | None


def resolve_precision(config: TrainingConfig, device: torch.device) -> Precision:
    """The dtypes that the options ask for on a device (ConfigError where they cannot be had)."""
    if faults := list(find_precision_faults(config, has_device=lambda: device.type == "cuda")):
        raise ConfigError(faults)
    formats = choose_formats(config, device.type)
    autocast = getattr(torch, formats.autocast) if formats.autocast else None
    return Precision(getattr(torch, formats.base), getattr(torch, formats.adapter), autocast)
