"""How an option is declared: one field with its type, default, bounds, description and other spellings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

PathRole = Literal["created", "existing", "source"]


def option(
    default: Any,
    description: str,
    *,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    aliases: Sequence[str] = (),
    negated: Sequence[str] = (),
    values: Mapping[str, str] | None = None,
    removed: Mapping[str, str] | None = None,
    env: Sequence[str] = (),
    path: PathRole | None = None,
    built: Sequence[Any] | None = None,
    accepted: bool = False,
) -> Any:
    """Declares one option.

    `aliases` are old names, `negated` old names that said the opposite, `values` other spellings of a value, `removed`
    values that SimpleTuner dropped and what to use, `env` its environment variables. `accepted` marks an option that
    is read but has no effect yet; `built` names the values that have one.
    """
    extra: dict[str, Any] = {
        "aliases": list(aliases),
        "negated": list(negated),
        "values": dict(values or {}),
        "removed": dict(removed or {}),
        "env": list(env),
        "path": path,
        "built": None if built is None else list(built),
        "status": "accepted" if accepted or built is not None else None,
    }
    bounds: dict[str, Any] = {"gt": gt, "ge": ge, "lt": lt, "le": le}
    return Field(
        default,
        description=description,
        json_schema_extra={key: value for key, value in extra.items() if value},
        **{key: value for key, value in bounds.items() if value is not None},
    )


class Section(BaseModel):
    """Base of every group of options: frozen, no unknown keys, and forgiving about how a value is spelled."""

    model_config = ConfigDict(
        defer_build=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
    )

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        return read_value(cls.model_fields[str(info.field_name)], value)


def extra_of(field: FieldInfo) -> dict[str, Any]:
    """What the declaration says beyond type and bounds."""
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def parts_of(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a type: `int | None` has two, a Literal one."""
    if get_origin(annotation) in (Union, UnionType):
        return tuple(part for alternative in get_args(annotation) for part in parts_of(alternative))
    return (annotation,)


def choices_of(field: FieldInfo) -> tuple[Any, ...]:
    """The allowed values of a choice, none for other kinds."""
    return tuple(
        choice for part in parts_of(field.annotation) if get_origin(part) is Literal for choice in get_args(part)
    )


def accepts(field: FieldInfo, kind: type) -> bool:
    """Says whether a value of this kind may stand in the field."""
    return any(part is kind or get_origin(part) is kind for part in parts_of(field.annotation))


def read_value(field: FieldInfo, value: Any) -> Any:
    """Turns the spellings that configuration files, flags and forms use into what the field's type expects."""
    if isinstance(value, str):
        return _read_text(field, value)
    if value is None and not accepts(field, NoneType) and not field.is_required():
        return field.get_default(call_default_factory=True)
    if isinstance(value, bool) and not accepts(field, bool) and value not in choices_of(field):
        return _read_switch(field, value)
    if isinstance(value, dict) and accepts(field, list) and not accepts(field, dict):
        return [value]
    return value


def _read_switch(field: FieldInfo, value: bool) -> Any:
    spellings = extra_of(field).get("values", {})
    if (spelling := str(value).lower()) in spellings:
        return spellings[spelling]
    raise PydanticCustomError("boolean", "cannot be true or false")


def _read_text(field: FieldInfo, text: str) -> Any:
    if not text.strip():
        return _read_empty(field, text)
    choices = choices_of(field)
    if choices:
        return match_choice(text, choices, extra_of(field).get("values", {}))
    if accepts(field, list) or accepts(field, dict):
        return _read_structure(field, text)
    if accepts(field, bool) and text.strip().lower() in ("true", "false"):
        return text.strip().lower() == "true"
    return text if accepts(field, str) else text.strip()


def _read_empty(field: FieldInfo, text: str) -> Any:
    if accepts(field, NoneType):
        return None
    if accepts(field, str) and not field.is_required():
        return text
    if field.is_required():
        raise PydanticCustomError("missing", "is required")
    return field.get_default(call_default_factory=True)


def _read_structure(field: FieldInfo, text: str) -> Any:
    if text.lstrip().startswith(("[", "{")):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise PydanticCustomError("json", "is not JSON: {reason}", {"reason": str(error)}) from error
        return [found] if isinstance(found, dict) and not accepts(field, dict) else found
    if accepts(field, str):
        return text
    return [part.strip() for part in text.split(",")]


def match_choice(text: str, choices: Sequence[Any], spellings: Mapping[str, str]) -> Any:
    """The choice that a text means, whatever its case and whether it uses `-`, `_` or a space; else the text itself."""
    known = {_squash(str(choice)): choice for choice in choices}
    known |= {_squash(spelling): choice for spelling, choice in spellings.items()}
    return text if text in choices else known.get(_squash(text), text)


def _squash(text: str) -> str:
    return re.sub(r"[-_ ]", "", text.strip().lower())


def closest(name: str, known: Sequence[str]) -> str | None:
    """The known name most like this one, if any is."""
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    return near[0] if near else None


def describe(field: FieldInfo) -> str:
    """What a field allows, in words."""
    choices = choices_of(field)
    if choices:
        return ", ".join(str(choice) for choice in choices)
    for kind, words in (
        (bool, "true or false"),
        (int, "a whole number"),
        (float, "a number"),
        (Path, "a path"),
        (list, "a list"),
        (dict, "an object"),
        (str, "text"),
    ):
        if accepts(field, kind):
            return words + _describe_bounds(field)
    return "an object"


def _describe_bounds(field: FieldInfo) -> str:
    bounds = {
        name: getattr(mark, name)
        for mark in field.metadata
        for name in ("gt", "ge", "lt", "le")
        if getattr(mark, name, None) is not None
    }
    words = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}
    return "".join(f" {words[name]} {_plain(bounds[name])}" for name in ("gt", "ge", "lt", "le") if name in bounds)


def _plain(number: float) -> str:
    # Whole numbers in full: 1e+08 is not how people write a limit.
    return str(int(number)) if float(number).is_integer() else f"{number:g}"
