"""What a demo came to: the scores of both models, kept as a file between the two processes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from flowtuner import durable

SHEET = "before_after.png"
SCORES = "scores.json"


@dataclass(frozen=True)
class Score:
    """Shares of pictures with the wanted colour, and with both colour and shape as wanted."""

    colour: float
    both: float


@dataclass(frozen=True)
class Comparison:
    """How often the models got a prompt right, before and after."""

    before: Score
    after: Score
    prompts: int


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Leaves the scores in a folder."""
    durable.write_json(folder / SCORES, asdict(comparison))


def read_comparison(folder: Path) -> Comparison:
    """The scores that `write_comparison` left."""
    value = durable.read_json(folder / SCORES)
    return Comparison(Score(**value["before"]), Score(**value["after"]), value["prompts"])
