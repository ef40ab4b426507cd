"""The options, grouped: one small file per group."""

from flowtuner.options.sections.adapter import AdapterOptions
from flowtuner.options.sections.checkpoints import CheckpointOptions
from flowtuner.options.sections.data import DataOptions
from flowtuner.options.sections.hardware import HardwareOptions
from flowtuner.options.sections.model import ModelOptions
from flowtuner.options.sections.optimizer import OptimizerOptions
from flowtuner.options.sections.publishing import PublishingOptions
from flowtuner.options.sections.tracking import TrackingOptions
from flowtuner.options.sections.training import TrainingOptions
from flowtuner.options.sections.validation import ValidationOptions

SECTIONS = (
    ModelOptions,
    AdapterOptions,
    DataOptions,
    TrainingOptions,
    OptimizerOptions,
    CheckpointOptions,
    ValidationOptions,
    PublishingOptions,
    TrackingOptions,
    HardwareOptions,
)

__all__ = [
    "SECTIONS",
    "AdapterOptions",
    "CheckpointOptions",
    "DataOptions",
    "HardwareOptions",
    "ModelOptions",
    "OptimizerOptions",
    "PublishingOptions",
    "TrackingOptions",
    "TrainingOptions",
    "ValidationOptions",
]
