"""Turns what pydantic finds wrong into faults a user can act on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from flowtuner.errors import Fault
from flowtuner.options.fields import Section, choices_of, closest, describe, extra_of, parts_of

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
    "extra_forbidden": "is no known key",
}
TYPE_NAMES = ("float", "int", "str", "bool", "list", "dict")


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
    kind = detail["type"]
    inner = [part for part in detail["loc"][1:] if _is_place(part)]
    place = name + "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in inner)
    target = _find_inner(field, inner) if field else None
    value = None if kind in ("missing", "extra_forbidden") else detail["input"]
    allowed = detail.get("ctx", {}).get("allowed") or (describe(target) if target else "")
    suggestion = _suggest(value, target) if target else ""
    if kind == "extra_forbidden" and field and inner:
        suggestion = _suggest_key(str(inner[-1]), _find_records(field, inner[:-1]))
    return Fault(place, value, origin, PROBLEMS.get(kind, detail["msg"]), allowed, suggestion)


def _is_place(part: int | str) -> bool:
    # pydantic also names the alternative of a union that it tried, which is noise for a user.
    return isinstance(part, int) or (part not in TYPE_NAMES and part.isidentifier() and not part[0].isupper())


def _find_inner(field: FieldInfo, inner: list[int | str]) -> FieldInfo | None:
    """The field of a nested record that a place leads to; the field itself where there is no record."""
    for part in inner:
        records = [kind for kind in parts_of(field.annotation) if isinstance(kind, type) and issubclass(kind, Section)]
        if not isinstance(part, int):
            found = records[0].model_fields.get(part) if records else None
            if found is None:
                return None
            field = found
    return field


def _find_records(field: FieldInfo, inner: list[int | str]) -> list[type[Section]]:
    outer = _find_inner(field, inner)
    kinds = parts_of(outer.annotation) if outer else ()
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)]


def _suggest_key(key: str, records: list[type[Section]]) -> str:
    known = [name for record in records for name in record.model_fields]
    near = closest(key, known)
    return f"Did you mean {near}?" if near else f"Known keys: {', '.join(known)}."


def _suggest(value: Any, field: FieldInfo) -> str:
    removed = extra_of(field).get("removed", {}).get(str(value))
    if removed:
        return f"SimpleTuner removed it; use {removed}."
    if value is None:
        return ""
    spellings = extra_of(field).get("values", {})
    near = closest(str(value).strip().lower(), [*map(str, choices_of(field)), *spellings])
    return f"Did you mean {spellings.get(near, near)}?" if near else ""
