"""Keeps credentials out of what is shown."""

from __future__ import annotations

import re
from typing import Any

SECRET = re.compile(r"secret|token|passw|credential|connection_string|(access|account|api)_key", re.I)
COUNTED = re.compile(r"(max|num|count|length|limit)\w*tokens?|tokens?_(length|limit|count)|tokenizer", re.I)
HIDDEN = "********"


def hide_secrets(value: Any, name: str = "") -> Any:
    """A copy of nested options in which values under secret-looking names are masked."""
    if isinstance(value, dict):
        return {key: hide_secrets(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [hide_secrets(inner, name) for inner in value]
    is_secret = isinstance(value, str) and value and SECRET.search(name) and not COUNTED.search(name)
    return HIDDEN if is_secret else value
