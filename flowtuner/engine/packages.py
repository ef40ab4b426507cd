"""Packages that not every installation has: found without importing them, and named with what installs them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

IsHere = Callable[[str], bool]


@dataclass(frozen=True)
class Package:
    """How Python and how pip call a package."""

    module: str
    name: str
    install: str


def is_installed(module: str) -> bool:
    """Says whether a package is here, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it is a part of is not here either
        return False
