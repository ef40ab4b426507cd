"""What a look at a run before its start comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing a run would stumble over, and what to do about it."""

    level: Literal["error", "warning"]
    check: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.check}: {self.message}" + (f" {self.fix}" if self.fix else "")
