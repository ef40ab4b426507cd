"""Measures one thing against another in turns, and prints what came out against its target."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Work = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One figure of the table; `at_least` and `at_most` are its targets, if it has any."""

    name: str
    figure: float
    unit: str = "x"
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    def is_missed(self, noise: float = 0.0) -> bool:
        """Whether the target is missed by more than the share by which equal things differ."""
        slack = noise * abs(self.figure)
        too_much = self.at_most is not None and self.figure - slack > self.at_most
        too_little = self.at_least is not None and self.figure + slack < self.at_least
        return too_much or too_little

    @property
    def target(self) -> str:
        """The target in words."""
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return "" if self.at_least is None else f">= {self.at_least:g}"


def compare(work: Work, against: Work, rounds: int, between: Work = lambda: None) -> float:
    """The time of `work` over that of `against`, run in turns A-B-A-B-A; the median of the rounds.

    What `between` does before each piece of work is not counted.
    """

    def measured(piece: Work) -> float:
        between()
        return stopwatch(piece)

    measured(against)
    measured(work)
    before, ratios = measured(against), []
    for _ in range(rounds):
        own, after = measured(work), measured(against)
        # Both neighbours count, so that a machine that grows slower or faster favours neither side.
        ratios.append(2 * own / (before + after))
        before = after
    return statistics.median(ratios)


def stopwatch(work: Work) -> float:
    """Seconds that a piece of work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def format_table(rows: Sequence[Row], noise: float) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | figure | target | | |", "|---|---:|---:|---|---|"]
    for row in rows:
        verdict = "" if not row.target else "MISSED" if row.is_missed(noise) else "ok"
        lines.append(f"| {row.name} | {row.figure:.3g} {row.unit} | {row.target} | {verdict} | {row.note} |")
    return "\n".join(lines)
