"""The two ways out of a command: data goes to stdout, what people read meanwhile to stderr."""

from __future__ import annotations

import json
import sys
from typing import Any


def write(text: object = "") -> None:
    """Writes what was asked for."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def write_json(value: Any, indent: int | None = 2) -> None:
    """Writes data for machines; without `indent` one line each."""
    write(json.dumps(value, indent=indent, default=str, ensure_ascii=False))


def tell(text: object = "") -> None:
    """Tells the person who watches."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
