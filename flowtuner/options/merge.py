"""Puts the sources on top of each other: one value per option, with where it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flowtuner.errors import Fault
from flowtuner.options.config import TrainingConfig
from flowtuner.options.fields import accepts
from flowtuner.options.names import Spelling, bare_name, find_spelling, is_ignored, suggest
from flowtuner.options.origin import Given
from flowtuner.options.redaction import hide_secrets
from flowtuner.options.sources import Layer
from flowtuner.options.template import expand


def merge(
    layers: Iterable[Layer], environ: Mapping[str, str], faults: list[Fault], warnings: list[str]
) -> dict[str, Given]:
    """The strongest value of every option; unknown keys and unset variables become faults."""
    chosen: dict[str, Given] = {}
    for layer in layers:
        chosen |= _read_layer(layer, environ, faults, warnings)
    return chosen


def _read_layer(layer: Layer, environ: Mapping[str, str], faults: list[Fault], warnings: list[str]) -> dict[str, Given]:
    found: dict[str, Given] = {}
    for given in layer:
        if given.value is None or is_ignored(given.key):
            continue
        spelling = find_spelling(given.key)
        if spelling is None:
            faults.append(unknown_option(given.key, str(given.origin)))
            continue
        if spelling.legacy:
            warnings.append(_explain_legacy(given, spelling))
        named = Given(spelling.option, _expand(spelling, given, environ, faults), given.origin)
        _add(found, named, faults)
    return found


def unknown_option(key: str, origin: str = "") -> Fault:
    """The fault of a key that means no option."""
    near = suggest(key)
    advice = f"Did you mean {near}?" if near else "`flowtuner config schema` lists all options."
    return Fault(bare_name(key), None, origin, "is no known option", suggestion=advice)


def _add(found: dict[str, Given], given: Given, faults: list[Fault]) -> None:
    earlier = found.get(given.key)
    if earlier is not None and given.origin.kind == "flag":
        if accepts(TrainingConfig.model_fields[given.key], list):
            given = Given(given.key, [*_as_list(earlier.value), *_as_list(given.value)], given.origin)
    elif earlier is not None and given.origin.kind != "environment" and str(earlier.value) != str(given.value):
        said, before = (hide_secrets({given.key: value})[given.key] for value in (given.value, earlier.value))
        faults.append(
            Fault(
                given.key,
                said,
                str(given.origin),
                f"is given twice; {earlier.origin} says {before!r}",
                suggestion="Keep one of them.",
            )
        )
    found[given.key] = given


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _expand(spelling: Spelling, given: Given, environ: Mapping[str, str], faults: list[Fault]) -> Any:
    value, missing = expand(given.value, environ)
    faults.extend(
        Fault(
            spelling.option,
            f"{{env:{name}}}",
            str(given.origin),
            f"names the environment variable {name}, which is not set",
            suggestion=f"Set {name}.",
        )
        for name in missing
    )
    return _negate(value) if spelling.negated else value


def _negate(value: Any) -> Any:
    opposite = {"true": False, "1": False, "yes": False, "on": False, "false": True, "0": True, "no": True, "off": True}
    return opposite.get(str(value).strip().lower(), value)


def _explain_legacy(given: Given, spelling: Spelling) -> str:
    if spelling.negated:
        return f"{bare_name(given.key)} ({given.origin}) is the old opposite of {spelling.option}; write that."
    return f"{bare_name(given.key)} ({given.origin}) is the old name of {spelling.option}; write that."
