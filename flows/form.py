"""The options as a form in Prefect's UI."""

from __future__ import annotations

import json
from typing import Any

from flowtuner.options import training_schema

FIRST = (
    "model_family",
    "model_flavour",
    "model_type",
    "pretrained_model_name_or_path",
    "output_dir",
    "data_backend_config",
    "max_train_steps",
    "num_train_epochs",
    "train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler",
    "lr_warmup_steps",
    "optimizer",
    "mixed_precision",
    "lora_rank",
    "seed",
    "checkpoint_step_interval",
    "checkpoints_total_limit",
    "resume_from_checkpoint",
    "validation_prompt",
    "validation_step_interval",
    "validation_resolution",
    "publishing_config",
)
ABOUT = "The options of a run, as in config.json. `env` or `config_file` may hold them instead; what is set here wins."


def form_schema() -> dict[str, Any]:
    """Every option that has an effect, the usual ones first; none required, and other spellings are welcome."""
    schema = training_schema()
    known = schema["properties"]
    names = [name for name in FIRST if name in known]
    names += [name for name, field in known.items() if name not in FIRST and _has_effect(field)]
    fields = {name: _without_default(known[name]) for name in names}
    return schema | {"description": ABOUT, "properties": fields, "additionalProperties": True, "required": []}


def _has_effect(field: dict[str, Any]) -> bool:
    return field.get("x-status") != "accepted" or bool(field.get("x-built"))


def _without_default(field: dict[str, Any]) -> dict[str, Any]:
    # A form sends the defaults it shows as if somebody had chosen them, and two defaults may exclude each other.
    shown = dict(field)
    default = shown.pop("default", None)
    if default not in (None, "", [], {}):
        shown["description"] = f"{shown.get('description', '')} Default: {json.dumps(default)}."
    return shown
