"""When captions and pictures are encoded: ahead of training, when first drawn, or every time anew."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from flowtuner.engine.cache.places import find_text_entry
from flowtuner.options import DatasetEntry, TrainingConfig


class Mode(Enum):
    """How a cache is used."""

    FILLED = "filled before training"
    ON_DEMAND = "filled while training"
    UNUSED = "not used"


def latent_mode(entry: DatasetEntry, config: TrainingConfig) -> Mode:
    """How the latents of a dataset are kept."""
    if entry.vae_cache_disable or config.vae_cache_disable or entry.vae_cache_clear_each_epoch:
        return Mode.UNUSED
    return Mode.ON_DEMAND if entry.vae_cache_ondemand or config.vae_cache_ondemand else Mode.FILLED


def text_mode(entries: Sequence[DatasetEntry], config: TrainingConfig) -> Mode:
    """How the encoded prompts of a run are kept."""
    entry = find_text_entry(entries)
    if config.text_cache_disable or (entry and entry.text_cache_disable):
        return Mode.UNUSED
    return Mode.ON_DEMAND if config.text_cache_ondemand or (entry and entry.text_cache_ondemand) else Mode.FILLED
