"""JSON schemas and flags, generated from the fields: for forms, editors, the command line and the docs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flowtuner.options.config import TrainingConfig
from flowtuner.options.dataset import DatasetEntry
from flowtuner.options.fields import Section, accepts, choices_of, describe, extra_of
from flowtuner.options.sections import SECTIONS

# How an option is declared is of no interest to a form; what is left of it keeps a name that schemas allow.
KEPT = {"aliases": "x-aliases", "status": "x-status", "built": "x-built"}
DROPPED = ("negated", "values", "removed", "env", "path")


@dataclass(frozen=True)
class Flag:
    """One option as the command line and the docs show it."""

    name: str
    section: str
    description: str
    allowed: str
    default: Any
    is_required: bool
    is_switch: bool
    choices: tuple[Any, ...]
    aliases: tuple[str, ...]
    status: str


def flags() -> tuple[Flag, ...]:
    """Every option, group by group."""
    return tuple(flag for section in SECTIONS for flag in flags_of(section, section_title(section)))


def flags_of(model: type[Section], title: str) -> Iterator[Flag]:
    """The fields of one group."""
    for name in model.model_fields:
        if name in model.__annotations__:
            field = model.model_fields[name]
            extra = extra_of(field)
            required = field.is_required() or name == "data_backend_config"
            yield Flag(
                name=name,
                section=title,
                description=field.description or "",
                allowed=describe(field),
                default=None if field.is_required() else field.get_default(call_default_factory=True),
                is_required=required,
                is_switch=accepts(field, bool),
                choices=choices_of(field),
                aliases=(*extra.get("aliases", ()), *extra.get("negated", ())),
                status="partly" if extra.get("built") else extra.get("status", ""),
            )


def section_title(section: type[Section]) -> str:
    """A group's heading."""
    return section.__name__.removesuffix("Options")


def training_schema() -> dict[str, Any]:
    """The JSON schema of the options: flat, without references."""
    schema = _inline(TrainingConfig.model_json_schema())
    schema["required"] = sorted({*schema.get("required", []), "data_backend_config"})
    # A form that sends this default back beside max_train_steps would contradict it.
    schema["properties"]["num_train_epochs"].pop("default")
    for flag in flags():
        schema["properties"][flag.name]["x-section"] = flag.section
    return schema


def dataset_schema() -> dict[str, Any]:
    """The JSON schema of a dataloader file: a list of entries, without references."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Dataloader",
        "type": "array",
        "items": _inline(DatasetEntry.model_json_schema()),
    }


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    definitions = schema.pop("$defs", {})
    result: dict[str, Any] = _clean(schema, definitions)
    return result


def _clean(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_clean(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = copy.deepcopy(definitions[node["$ref"].rsplit("/", 1)[-1]])
        return _clean(target | {key: value for key, value in node.items() if key != "$ref"}, definitions)
    is_field = "description" in node
    return {
        KEPT.get(key, key) if is_field else key: _clean(value, definitions)
        for key, value in node.items()
        if not (is_field and key in DROPPED)
    }
