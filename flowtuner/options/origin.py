"""Where a value came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

OriginKind = Literal["default", "file", "environment", "flag", "values"]


@dataclass(frozen=True)
class Origin:
    """The source of one value, in words a user can act on."""

    kind: OriginKind
    where: str = ""

    def __str__(self) -> str:
        return {"default": "default", "values": "values"}.get(self.kind, "") or self.where


DEFAULT = Origin("default")


@dataclass(frozen=True)
class Given:
    """One value as the user wrote it, under the name the user wrote."""

    key: str
    value: Any
    origin: Origin
