"""What a user may say: options and dataset entries, read from every source and checked at once."""

from flowtuner.options.config import TrainingConfig
from flowtuner.options.dataset import DatasetEntry
from flowtuner.options.load import load
from flowtuner.options.loaded import LoadedConfig, accepted_only
from flowtuner.options.names import suggest
from flowtuner.options.origin import Origin
from flowtuner.options.redaction import hide_secrets
from flowtuner.options.schema import Flag, dataset_schema, flags, training_schema

__all__ = [
    "DatasetEntry",
    "Flag",
    "LoadedConfig",
    "Origin",
    "TrainingConfig",
    "accepted_only",
    "dataset_schema",
    "flags",
    "hide_secrets",
    "load",
    "suggest",
    "training_schema",
]
