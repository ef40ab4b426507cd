"""What somebody may ask of a run under way, and how that is written down for the run to find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

VALIDATE, CHECKPOINT = "validate", "checkpoint"
KINDS = (VALIDATE, CHECKPOINT)
KEY = "flowtuner-order-"


@dataclass(frozen=True)
class Order:
    """One wish; the id tells the asker's own from others."""

    kind: str
    id: str

    @property
    def key(self) -> str:
        """Its name among the inputs of a flow run."""
        return f"{KEY}{self.kind}-{self.id}"

    @classmethod
    def parse(cls, key: str) -> Self | None:
        """The order with this name; None for what is none."""
        kind, _, id = key.removeprefix(KEY).partition("-")
        return cls(kind, id) if key.startswith(KEY) and kind in KINDS and id else None
