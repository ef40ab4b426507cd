"""What an adapter file says about itself, under the names of the model specification that galleries and tools read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowtuner.engine.family import Family
    from flowtuner.options import TrainingConfig

VERSION = "1.0.0"
IMPLEMENTATION = "https://github.com/huggingface/diffusers"
SEPARATOR = ", "


def describe_adapter(config: TrainingConfig, family: Family, kind: str) -> dict[str, str]:
    """The same words for the same configuration: no date, no host, nothing that would make another file of it."""
    edge = round(config.resolution if config.resolution_type != "area" else math.sqrt(config.resolution * 1e6))
    architecture = family.architecture or family.name.replace("_", "-")
    words = {
        "sai_model_spec": VERSION,
        "architecture": f"{architecture}/{kind}",
        "implementation": IMPLEMENTATION,
        "title": config.tracker_run_name,
        "description": f"{kind} on {family.source_name}",
        "comment": _join(config.modelspec_comment),
        "resolution": f"{edge}x{edge}",
        "prediction_type": PREDICTIONS.get(family.prediction, family.prediction),
        "trigger_phrase": _join(config.instance_prompt),
    }
    return {"format": "pt"} | {f"modelspec.{name}": text for name, text in words.items() if text}


PREDICTIONS = {"v_prediction": "v"}


def _join(text: str | list[str] | None) -> str:
    return SEPARATOR.join(text) if isinstance(text, list) else text or ""
