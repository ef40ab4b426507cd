"""Turns what pydantic finds wrong into faults a user can act on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from flowtuner.errors import Fault
from flowtuner.options.fields import Section, choices_of, closest, describe, extra_of

PROBLEMS = {
    "missing": "is required",
    "literal_error": "is not one of the choices",
    "greater_than": "is too small",
    "greater_than_equal": "is too small",
    "less_than": "is too large",
    "less_than_equal": "is too large",
    "finite_number": "is not a finite number",
    "int_from_float": "is not a whole number",
    "int_parsing": "is not a whole number",
    "int_type": "is not a whole number",
    "int_parsing_size": "is too large",
    "float_parsing": "is not a number",
    "float_type": "is not a number",
    "bool_parsing": "is neither true nor false",
    "bool_type": "is neither true nor false",
    "string_type": "is not text",
    "path_type": "is not a path",
    "list_type": "is not a list",
    "dict_type": "is not an object",
    "model_type": "is not an object",
}


def translate(
    error: ValidationError, model: type[Section], name: Callable[[str], str], origin: Callable[[str], str]
) -> list[Fault]:
    """One fault per field; `name` and `origin` say how the field is called and where its value came from."""
    faults: dict[str, Fault] = {}
    for detail in error.errors(include_url=False):
        key = str(detail["loc"][0]) if detail["loc"] else ""
        field = model.model_fields.get(key)
        if key not in faults:
            faults[key] = _describe_fault(detail, field, name(key), origin(key))
    return list(faults.values())


def _describe_fault(detail: Any, field: FieldInfo | None, name: str, origin: str) -> Fault:
    inner = [str(part) for part in detail["loc"][1:] if isinstance(part, int) or str(part).isidentifier()]
    problem = PROBLEMS.get(detail["type"], detail["msg"])
    value = None if detail["type"] == "missing" else detail["input"]
    allowed = detail.get("ctx", {}).get("allowed") or (describe(field) if field else "")
    return Fault(
        name,
        value,
        "" if value is None and origin == "default" else origin,
        f"{'.'.join(inner)} {problem}" if inner and not field_is_union(field) else problem,
        allowed,
        _suggest(value, field) if field else "",
    )


def field_is_union(field: FieldInfo | None) -> bool:
    """Says whether pydantic names the alternative it tried, which is noise for a user."""
    return field is not None and len(getattr(field.annotation, "__args__", ())) > 1


def _suggest(value: Any, field: FieldInfo) -> str:
    removed = extra_of(field).get("removed", {}).get(str(value))
    if removed:
        return f"SimpleTuner removed it; use {removed}."
    spellings = extra_of(field).get("values", {})
    near = (
        closest(str(value).strip().lower(), [*map(str, choices_of(field)), *spellings]) if value is not None else None
    )
    return f"Did you mean {spellings.get(near, near)}?" if near else ""
