"""The ranks of an engine that is one process, without torch."""

from __future__ import annotations


def join(rank: int, world: int) -> None:
    """Nobody else is there to be joined."""
