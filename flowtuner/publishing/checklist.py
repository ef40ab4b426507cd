"""A list of checks, each with its code, what was found, and what to do: for people and for machines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

State = Literal["pass", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `code` names what is wrong, or what was found right."""

    code: str
    what: str
    state: State
    reason: str = ""
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}" + (f" {self.fix}" if self.fix else "")


def failures(checks: Iterable[Check]) -> list[Check]:
    """Those that must be put right first."""
    return [check for check in checks if check.state == "fail"]
