"""What every body has in common: text that can be written down, and no more levels than anybody needs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, model_validator

MOST_LEVELS = 32


class Incoming(BaseModel):
    """Base of all bodies."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unwritable(cls, value: Any) -> Any:
        return refuse_unwritable(value)


def refuse_unwritable(value: Any, levels: int = MOST_LEVELS) -> Any:
    """The value as it is; ValueError for half a character, a zero byte, or lists in lists without end."""
    if levels < 0:
        raise ValueError(f"is nested more than {MOST_LEVELS} levels deep")
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("holds a zero byte or half a character, which is no text")
    elif isinstance(value, dict):
        for key, item in value.items():
            refuse_unwritable(key, levels - 1)
            refuse_unwritable(item, levels - 1)
    elif isinstance(value, list):
        for item in value:
            refuse_unwritable(item, levels - 1)
    return value
