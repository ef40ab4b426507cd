"""`python -m benchmarks.gpu`: real sizes on one GPU, random weights, the engine against a loop written by hand.

It needs no Prefect.

Every case builds the model on the device, steps it through the engine's own loop, then does the same by hand in plain
torch. `--size tiny` runs the same code anywhere, to see that it works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.by_hand import HandLoop
from benchmarks.sizes import MODELS, Model
from flowtuner.engine.assembly import assemble
from flowtuner.engine.feed import Batch
from flowtuner.engine.loop import Trainer, train
from flowtuner.engine.meter import Meter
from flowtuner.engine.precision import resolve_precision
from flowtuner.options import TrainingConfig

TARGET = 1.05
MATRIX_EDGE = {"cuda": 8192, "cpu": 512}
COLUMNS = (
    "case",
    "compiled",
    "first step s",
    "steps/s",
    "peak GiB",
    "share of matrix rate",
    "engine over hand",
    "memory over hand",
)


@dataclass(frozen=True)
class Case:
    """One way of training one model."""

    name: str
    model: str
    options: dict[str, Any]
    batch: int = 1


@dataclass(frozen=True)
class Figures:
    """What one side of a case came to."""

    step_s: float
    peak_bytes: int
    flops: float = 0.0
    first_s: float = 0.0
    """The first step, compilation included."""


@dataclass
class MemoryFeed:
    """One batch in memory, given out again and again, so that nothing but the step is measured."""

    batch_: Batch
    numbers: list[int] = field(default_factory=list)

    def batch(self, number: int) -> Batch:
        """The batch, whichever number it has."""
        return self.batch_


FULL = {"model_type": "full", "optimizer": "torch-adamw", "mixed_precision": "bf16"}
LORA = {
    "model_type": "lora",
    "lora_rank": 16,
    "lora_dropout": 0.0,
    "optimizer": "torch-adamw",
    "mixed_precision": "bf16",
}
CASES = (
    Case("PixArt Sigma 900M, full", "pixart_sigma", FULL, batch=4),
    Case("PixArt Sigma 900M, LoRA", "pixart_sigma", LORA, batch=4),
    Case("Flux 12B, LoRA bf16", "flux", LORA),
    Case("Flux 12B, LoRA int8", "flux", LORA | {"base_model_precision": "int8-torchao"}),
)


def main() -> int:
    """Runs the cases that were asked for and prints one table."""
    wishes = _parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and wishes.size == "real":
        print("no CUDA device is here; `--size tiny` shows on the CPU that the benchmark runs", file=sys.stderr)
        return 2
    rate = measure_matrix_rate(device)
    print(f"{_name(device)}, torch {torch.__version__}; bf16 matrices: {rate / 1e12:.3g} TFLOP/s\n")
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    missed = []
    for case in CASES:
        if wishes.only and not any(word.lower() in case.name.lower() for word in wishes.only):
            continue
        for compiled in wishes.compiled:
            cells, ratio = run_case(case, wishes.size, device, rate, compiled, wishes.steps)
            print("| " + " | ".join(cells) + " |", flush=True)
            missed += [case.name] if ratio > TARGET and wishes.size == "real" else []
    if missed:
        print(f"\nslower than {TARGET:g} times a loop written by hand: {', '.join(missed)}")
    return 1 if missed else 0


def run_case(
    case: Case, size: str, device: torch.device, rate: float, compiled: str, steps: int
) -> tuple[list[str], float]:
    """Measures the engine, then the loop written by hand, each alone on the device."""
    model = MODELS[case.model][size]
    is_compiled = compiled != "no"
    if is_compiled:
        choice = {"dynamo_backend": "inductor", "dynamo_use_regional_compilation": compiled == "blocks"}
        case = replace(case, options=case.options | choice)
    own = _measure(lambda: _engine_steps(case, model, device), device, steps)
    hand = _measure(lambda: _hand_steps(case, model, device, compiled), device, steps, counts=not is_compiled)
    flops = hand.flops or _count_flops(case, model, device)
    ratio = own.step_s / hand.step_s
    cells = [
        case.name,
        compiled,
        f"{own.first_s:.1f}",
        f"{1 / own.step_s:.3g}",
        f"{own.peak_bytes / 2**30:.3g}",
        f"{flops / own.step_s / rate:.0%}",
        f"{ratio:.3f}",
        f"{own.peak_bytes / hand.peak_bytes:.3f}" if hand.peak_bytes else "",
    ]
    return cells, ratio


def measure_matrix_rate(device: torch.device) -> float:
    """Floating-point operations per second of large bf16 matrix products: the ceiling of this chip."""
    edge = MATRIX_EDGE[device.type]
    left, right = (torch.randn(edge, edge, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(8):
        _wait(device)
        started = time.perf_counter()
        for _ in range(4):
            left @ right
        _wait(device)
        times.append((time.perf_counter() - started) / 4)
    return 2 * edge**3 / min(times)


def _measure(
    build: Callable[[], Callable[[int], None]], device: torch.device, steps: int, counts: bool = False
) -> Figures:
    from torch.utils.flop_counter import FlopCounterMode

    _forget(device)
    run = build()
    built = time.perf_counter()
    flops = 0.0
    run(1)
    _wait(device)
    first_s = time.perf_counter() - built
    run(1)  # allocations, autotuning
    if counts:
        with FlopCounterMode(display=False) as counter:
            run(1)
        flops = float(counter.get_total_flops())
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()  # of the steps alone: counting takes attention apart, loading comes once
    times = []
    for _ in range(5):
        _wait(device)
        started = time.perf_counter()
        run(steps)
        _wait(device)
        times.append((time.perf_counter() - started) / steps)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    del run
    _forget(device)
    return Figures(statistics.median(times), peak, flops, first_s)


def _count_flops(case: Case, model: Model, device: torch.device) -> float:
    return _measure(lambda: _hand_steps(case, model, device, "no"), device, 1, counts=True).flops


def _engine_steps(case: Case, model: Model, device: torch.device) -> Callable[[int], None]:
    config = _configure(case)
    family = model.open(config)
    precision = resolve_precision(config, device)
    dtype = precision.autocast or precision.base
    batch = Batch(model.draw_latents(case.batch, device, dtype), model.draw_text(case.batch, device, dtype))
    make_feed: Any = lambda seed: MemoryFeed(batch)  # noqa: E731
    trainer: Trainer = assemble(config, family, precision, device, 0, 1_000_000, make_feed)
    trainer.schedule.to(device)
    meter = Meter(lambda type, data: None, 1_000_000, math.inf, time.monotonic)
    stop = threading.Event()
    return lambda count: train(trainer, trainer.step + count, stop, meter)


def _hand_steps(case: Case, model: Model, device: torch.device, compiled: str) -> Callable[[int], None]:
    loop = HandLoop(model, _configure(case), device, case.batch, compiled)
    return loop.steps


def _configure(case: Case) -> TrainingConfig:
    least = {
        "model_family": case.model,
        "output_dir": Path("unused"),
        "data_backend_config": Path("unused.json"),
        "learning_rate": 1e-5,
        "max_grad_norm": 1.0,
        "grad_clip_method": "norm",
        "gradient_checkpointing": True,
        "train_batch_size": case.batch,
    }
    return TrainingConfig(**least | case.options)


def _forget(device: torch.device) -> None:
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--size", choices=["real", "tiny"], default="real", help="tiny: to see that it runs")
    parser.add_argument("--only", nargs="*", default=[], help="only cases whose names hold one of these words")
    parser.add_argument("--steps", type=int, default=4, help="steps per measurement (default %(default)s)")
    parser.add_argument(
        "--compiled",
        nargs="*",
        choices=["no", "blocks", "whole"],
        default=["no", "blocks"],
        help="what torch.compile is given: nothing, each kind of block once, the whole model (default %(default)s)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
