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
        faults.append(Fault(key, settings[key], origin, "unknown key", ", ".join(sorted(known)), hint))
    return settings, faults


def faults_of(error: ValidationError, origin: str) -> list[Fault]:
    """The faults behind a refused set of settings."""
    faults = []
    for mistake in error.errors(include_url=False):
        option = ".".join(str(part) for part in mistake["loc"]) or "entry"
        is_missing = mistake["type"] == "missing"
        value = None if is_missing else mistake["input"]
        faults.append(Fault(option, value, origin, "is required" if is_missing else mistake["msg"]))
    return faults
