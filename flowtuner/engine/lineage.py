"""Whether a checkpoint found elsewhere belongs to this run: what is trained on what, compared across machines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowtuner.engine.cache.places import index_root
from flowtuner.engine.checkpoints import SavedState, identity_of, plain_value
from flowtuner.engine.data.scan import scan_datasets
from flowtuner.options import LoadedConfig, TrainingConfig

# What makes one training out of many that a folder's name may stand for; nothing that depends on the machine.
TELLING = ("model_flavour", "learning_rate", "lr_scheduler", "lora_target_modules", "seed", "loss_type", "snr_gamma")


def describe_training(config: TrainingConfig) -> dict[str, Any]:
    """What a training is known by wherever it runs; it travels with every published checkpoint."""
    told = identity_of(config) | {name: plain_value(getattr(config, name)) for name in TELLING}
    # The same model may lie at another place on another machine.
    return told | {"base_model": Path(config.pretrained_model_name_or_path or "").name}


def describe_data(loaded: LoadedConfig) -> str:
    """The digest of a run's pictures and captions, as its checkpoints record it; looks at every picture once."""
    index = index_root(loaded.config)
    return scan_datasets(loaded.datasets, loaded.config, index_dir=index, report=lambda done, total: None).digest


def saved_identity(step: int, told: Mapping[str, Any]) -> SavedState:
    """What a published checkpoint says of itself, as far as it must agree with a run that goes on from it."""
    return SavedState(step, 0, 0, 0, dict(told), "")


def find_differences(told: Mapping[str, Any], config: TrainingConfig) -> list[str]:
    """Says in what a published training is not the present one; nothing if they are one and the same."""
    if not told:
        return ["nothing says what it was trained with"]
    present = describe_training(config)
    return [
        f"{name} was {told[name]!r}, is {value!r}" for name, value in present.items() if told.get(name, value) != value
    ]
