"""The options as a form in Prefect's UI."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import WithJsonSchema

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
NEEDED = "Needed, here or in the file."
ABOUT = "The options of a run, as in config.json: what is set here wins over the file, what is left empty is not sent."
ABOUT_ENV = "The name of a folder below config/ that holds config.json, such as mine for config/mine/config.json."
ABOUT_FILE = "Or the path of a configuration file, JSON or TOML."
ABOUT_PATH = "A run's output folder, or one checkpoint in it."
ABOUT_DESTINATIONS = (
    "Entries as in publishing_config, names of such entries, or of stored blocks; empty: those of the run that made it."
)
ENTRY_OR_NAME = {"anyOf": [{"type": "object"}, {"type": "string"}]}
ABOUT_EVERYTHING = "Of another program's folder: all that may leave the machine, checkpoints too, not only the model."
ABOUT_SCRIPT = "Command that is called once for everything of a run that a destination was just seen to hold."
ABOUT_REPAIR = "Reads every byte that is there first, and brings again what is wrong."


def form_schema() -> dict[str, Any]:
    """Every option that has an effect, the usual ones first; none required, and other spellings are welcome."""
    schema = training_schema()
    known = schema["properties"]
    names = [name for name in FIRST if name in known]
    names += [name for name, field in known.items() if name not in FIRST and _has_effect(field)]
    fields = {name: _shown(name, known[name], name in schema["required"]) for name in names}
    return schema | {"description": ABOUT, "properties": fields, "additionalProperties": True, "required": []}


def _has_effect(field: dict[str, Any]) -> bool:
    built = field.get("x-built", ())
    return len(built) > 1 if built else field.get("x-status") != "accepted"


def _shown(name: str, field: dict[str, Any], is_needed: bool) -> dict[str, Any]:
    # A form sends the defaults it shows as if somebody had chosen them: they would win over the file, and two defaults
    # may exclude each other.
    shown = _without_none(field) | {"title": name}
    default = shown.pop("default", None)
    about = [str(field.get("description", ""))]
    about += [NEEDED] if is_needed else []
    about += [f"Default: {json.dumps(default)}."] if default not in (None, "", [], {}) else []
    if "enum" in shown and "x-built" in shown:
        shown["enum"] = [choice for choice in shown["enum"] if choice in shown["x-built"]]
    return shown | {"description": " ".join(about)}


def _without_none(field: dict[str, Any]) -> dict[str, Any]:
    # An empty field says None already; a union with it would be shown as a switch above every field.
    choices: list[dict[str, Any]] = [choice for choice in field.get("anyOf", ()) if choice != {"type": "null"}]
    rest: dict[str, Any] = {key: value for key, value in field.items() if key != "anyOf"}
    if len(choices) == 1:
        return rest | choices[0]
    return rest | {"anyOf": choices} if choices else rest


# Plain types at run time, so that every spelling and every mistake reaches `options.load`; the UI still shows a form.
TrainingValues = Annotated[dict[str, Any], WithJsonSchema(form_schema())]
EnvName = Annotated[str | None, WithJsonSchema({"type": "string", "description": ABOUT_ENV})]
ConfigFile = Annotated[str | None, WithJsonSchema({"type": "string", "description": ABOUT_FILE})]
FinishedPath = Annotated[str, WithJsonSchema({"type": "string", "description": ABOUT_PATH})]
DestinationEntries = Annotated[
    list[dict[str, Any] | str] | None,
    WithJsonSchema(
        {
            "type": "array",
            "items": {"anyOf": [{"type": "object"}, {"type": "string"}]},
            "description": ABOUT_DESTINATIONS,
        }
    ),
]
Everything = Annotated[bool, WithJsonSchema({"type": "boolean", "description": ABOUT_EVERYTHING})]
Repair = Annotated[bool, WithJsonSchema({"type": "boolean", "description": ABOUT_REPAIR})]
UploadScript = Annotated[str | None, WithJsonSchema({"type": "string", "description": ABOUT_SCRIPT})]
