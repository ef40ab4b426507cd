"""The options of a run as one flat, frozen record."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from flowtuner.options.sections import (
    AdapterOptions,
    CheckpointOptions,
    DataOptions,
    HardwareOptions,
    ModelOptions,
    OptimizerOptions,
    PublishingOptions,
    TrackingOptions,
    TrainingOptions,
    ValidationOptions,
)


class TrainingConfig(
    HardwareOptions,
    TrackingOptions,
    PublishingOptions,
    ValidationOptions,
    CheckpointOptions,
    OptimizerOptions,
    TrainingOptions,
    DataOptions,
    AdapterOptions,
    ModelOptions,
):
    """Every option of a run, checked; later bases come first in the list of fields."""

    @model_validator(mode="before")
    @classmethod
    def _settle(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        settled = dict(values)
        # SimpleTuner's default of one epoch would contradict a given number of steps, so steps alone mean no epochs.
        if _is_positive(values.get("max_train_steps")) and values.get("num_train_epochs") in (None, ""):
            settled["num_train_epochs"] = 0
        if values.get("lr_scheduler") == "constant" and _is_positive(values.get("lr_warmup_steps")):
            settled["lr_scheduler"] = "constant_with_warmup"
        return settled


def _is_positive(value: Any) -> bool:
    try:
        return float(value) > 0
    except (TypeError, ValueError, OverflowError):
        return False
