"""Fresh processes: the time from the start to the first step, and the peak of memory, over a bare script's."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Row

Report = dict[str, float]


def measure_processes(ground: Path, rounds: int) -> Iterator[Row]:
    """Runs bare and engine scripts in turns; both encode text and pictures, load the model and train."""
    bare, engine = [_run("bare", ground, "full")], []
    for number in range(rounds):
        engine.append(_run("engine_script", ground, f"process-{number}"))
        bare.append(_run("bare", ground, "full"))
    yield Row("start to first step over a bare script's", _ratio(engine, bare, "first_step_s"), at_most=1.3)
    yield Row("peak memory over a bare script's", _ratio(engine, bare, "peak_kib"), at_most=1.15)


def _ratio(engine: list[Report], bare: list[Report], name: str) -> float:
    ratios = [
        2 * own[name] / (before[name] + after[name])
        for own, before, after in zip(engine, bare[:-1], bare[1:], strict=True)
    ]
    return statistics.median(ratios)


def _run(script: str, *arguments: object) -> Report:
    environment = dict(os.environ) | {"BENCH_STARTED": str(time.time())}
    command = [sys.executable, "-m", f"benchmarks.{script}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    report: Report = json.loads(done.stdout.splitlines()[-1])
    return report
