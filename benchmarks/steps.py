"""The time of an engine's step over that of a loop written by hand, on the same model and data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

from benchmarks.bare import BareLoop, Loop
from benchmarks.ground import configure, open_session
from benchmarks.harness import Row, compare

BURST = 6
LIMITS = {8: 1.05, 1: 1.10}
MODES: dict[str, dict[str, object]] = {
    "full": {"model_type": "full"},
    "lora": {"model_type": "lora", "lora_alpha": 8},
    "lycoris": {"model_type": "lora", "lora_type": "lycoris"},
    "int8 lora": {"model_type": "lora", "lora_alpha": 8, "base_model_precision": "int8-torchao"},
}
KONTEXT = {"model_family": "flux", "model_flavour": "kontext", "flux_lora_target": "all"}


def measure_noise(ground: Path, rounds: int) -> Row:
    """Bare against bare: by how much equal things differ here and now."""
    first, second = BareLoop(ground, "full", 8), BareLoop(ground, "full", 8)
    ratio = compare(lambda: first.steps(BURST), lambda: second.steps(BURST), rounds)
    return Row("noise floor: hand-written loop over itself", ratio, note="what differs without a reason")


def measure_steps(ground: Path, rounds: int) -> Iterator[Row]:
    """Full and LoRA, at the batch sizes where overhead hides and where it shows."""
    for kind in ("full", "lora"):
        for batch, limit in LIMITS.items():
            loop = BareLoop(ground, kind, batch)
            burst = BURST if batch > 1 else BURST * 3
            ratio = _compare(_engine(ground, f"{kind}-{batch}", kind, batch), loop, burst, rounds)
            yield Row(f"step, {kind}, batch {batch}: engine over hand-written loop", ratio, at_most=limit)


def measure_modes(ground: Path, rounds: int) -> Iterator[Row]:
    """Every mode of training for a model that draws from text and one that edits, each against the same by hand."""
    from benchmarks.bare_kontext import BareKontext

    loops: dict[str, Callable[[Path, str, int], Loop]] = {"PixArt": BareLoop, "Kontext": BareKontext}
    for (title, loop), (kind, options) in product(loops.items(), MODES.items()):
        model = KONTEXT | {"pretrained_model_name_or_path": str(ground / "kontext")} if title == "Kontext" else {}
        name = f"{title} {kind}"
        engine = _engine(ground, name, str(options["model_type"]), 8, **(options | model))
        ratio = _compare(engine, loop(ground, kind, 8), BURST, rounds)
        yield Row(f"step, {name}, batch 8: engine over hand-written loop", ratio, at_most=LIMITS[8])


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


def _engine(ground: Path, name: str, kind: str, batch: int, **options: object) -> Callable[[int], object]:
    values = {"model_type": kind, "train_batch_size": batch} | options
    session = open_session(configure(ground, name, **values))

    def train(count: int) -> None:
        session.train(session._trainer.step + count)

    return train


def _compare(engine: Callable[[int], object], loop: Loop, burst: int, rounds: int) -> float:
    return compare(lambda: engine(burst), lambda: loop.steps(burst), rounds)
