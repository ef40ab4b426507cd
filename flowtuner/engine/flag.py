"""A flag that a signal handler may raise at any instant."""

from __future__ import annotations


class Flag:
    """Like an event that nobody waits for: without the lock that a second signal would find taken for ever."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """Raises it."""
        self._is_set = True

    def clear(self) -> None:
        """Takes it down."""
        self._is_set = False

    def is_set(self) -> bool:
        """Whether it is raised."""
        return self._is_set
