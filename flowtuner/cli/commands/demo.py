"""`flowtuner demo`: a tiny model learns coloured shapes, without network or configuration."""

from __future__ import annotations

from collections.abc import Sequence

from flowtuner.demo.run import run as run_demo


def run(argv: Sequence[str]) -> int:
    """Runs the demo."""
    return run_demo(argv)
