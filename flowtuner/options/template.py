"""`{env:NAME}` in any text, at any depth, becomes the environment variable's value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

PLACEHOLDER = re.compile(r"\{env:([^{}]*)\}")


def expand(value: Any, environ: Mapping[str, str]) -> tuple[Any, tuple[str, ...]]:
    """Replaces every placeholder; also names the variables that are not set."""
    missing: list[str] = []
    return _expand(value, environ, missing), tuple(dict.fromkeys(missing))


def _expand(value: Any, environ: Mapping[str, str], missing: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _expand(item, environ, missing) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_expand(item, environ, missing) for item in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        name = found[1].strip()
        if name not in environ:
            missing.append(name)
        return environ.get(name, "")

    return PLACEHOLDER.sub(fill, value)
