"""The time of an engine's step over that of a loop written by hand, on the same model and data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.bare import BareLoop
from benchmarks.ground import configure, open_session
from benchmarks.harness import Row, compare

BURST = 6
LIMITS = {8: 1.05, 1: 1.10}


def measure_noise(ground: Path, rounds: int) -> Row:
    """Bare against bare: by how much equal things differ here and now."""
    first, second = BareLoop(ground, "full", 8), BareLoop(ground, "full", 8)
    ratio = compare(lambda: first.steps(BURST), lambda: second.steps(BURST), rounds)
    return Row("noise floor: hand-written loop over itself", ratio, note="what differs without a reason")


def measure_steps(ground: Path, rounds: int) -> Iterator[Row]:
    """Full and LoRA, at the batch sizes where overhead hides and where it shows."""
    for kind in ("full", "lora"):
        for batch, limit in LIMITS.items():
            engine = _engine(ground, f"{kind}-{batch}", kind, batch)
            loop = BareLoop(ground, kind, batch)
            burst = BURST if batch > 1 else BURST * 3
            ratio = compare(lambda: engine(burst), lambda: loop.steps(burst), rounds)  # noqa: B023
            yield Row(f"step, {kind}, batch {batch}: engine over hand-written loop", ratio, at_most=limit)


def measure_trimming(ground: Path, rounds: int) -> Row:
    """Text of its own length against text padded to PixArt's 300 tokens."""
    engine = _engine(ground, "trimmed", "full", 8)
    padded = BareLoop(ground, "full", 8, pad_to=300)
    ratio = compare(lambda: engine(BURST), lambda: padded.steps(BURST), rounds)
    return Row("step, text trimmed: engine over loop padded to 300 tokens", ratio, at_most=0.6)


def open_steps(ground: Path) -> Callable[[], object]:
    """A burst of the engine's steps, to be timed while something else goes on."""
    engine = _engine(ground, "beside", "full", 8)
    engine(1)
    return lambda: engine(BURST)


def _engine(ground: Path, name: str, kind: str, batch: int) -> Callable[[int], object]:
    session = open_session(configure(ground, name, model_type=kind, train_batch_size=batch))

    def train(count: int) -> None:
        session.train(session._trainer.step + count)

    return train
