"""The checks that every destination's entry in `publishing_config` goes through."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from flowtuner.errors import Fault

COMMON_KEYS = frozenset({"provider", "type", "block"})


def check_keys(entry: Mapping[str, Any], known: Collection[str], origin: str) -> tuple[dict[str, Any], list[Fault]]:
    """Splits an entry into the destination's own settings and the faults of keys that nobody knows."""
    settings = {key: value for key, value in entry.items() if key not in COMMON_KEYS}
    faults = []
    for key in sorted(set(settings) - set(known)):
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "remove it"
        # The value is not shown: a misspelt key may hold a credential.
        faults.append(Fault(key, None, origin, "unknown key", ", ".join(sorted(known)), hint))
    return settings, faults


def check_spellings(
    entry: Mapping[str, Any], spellings: Mapping[str, str], origin: str
) -> tuple[dict[str, Any], list[Fault]]:
    """Replaces other names of keys by ours; the same key under two names is a fault."""
    settings: dict[str, Any] = {}
    faults = []
    for key, value in entry.items():
        name = spellings.get(key, key)
        if name in settings:
            faults.append(Fault(name, None, origin, "is given twice, under two names", suggestion="keep one of them"))
        settings[name] = value
    return settings, faults


def faults_of(error: ValidationError, origin: str, secret_keys: Collection[str] = ()) -> list[Fault]:
    """The faults behind a refused set of settings, without the values of secret ones."""
    faults = []
    for mistake in error.errors(include_url=False):
        option = ".".join(str(part) for part in mistake["loc"]) or "entry"
        is_missing = mistake["type"] == "missing"
        place = mistake["loc"]
        # A rule between keys has all settings for its input.
        is_shown = bool(place) and place[0] not in secret_keys and not is_missing
        value = mistake["input"] if is_shown else None
        problem = "is required" if is_missing else mistake["msg"].removeprefix("Value error, ")
        faults.append(Fault(option, value, origin, problem))
    return faults
