"""What the flow adds to a leg: tasks, states, events and artifacts, against the same orders given by hand.

`python -m benchmarks.orchestration GROUND` runs both in a process of its own and prints the seconds per leg.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from benchmarks.ground import configure
from benchmarks.harness import Row
from flowtuner.engine.events import CHECKPOINT, EventLog, read_events
from flowtuner.engine.launch import Engine
from flowtuner.engine.plan import legs
from flowtuner.engine.run import RunSpec
from flowtuner.options import LoadedConfig

LEGS = 12
STEPS_PER_LEG = 4
LEG_S = 60
SHORT_STEPS = 20
LONG_STEPS = 320


def measure_orchestration(ground: Path) -> Iterable[Row]:
    """What the flow costs at the end of each leg, and what it does while a leg trains."""
    command = [sys.executable, "-m", "benchmarks.orchestration", str(ground)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    seconds = json.loads(done.stdout.splitlines()[-1])
    share = max(seconds["flow"] - seconds["by_hand"], 0.0) / LEG_S * 100
    note = f"a leg with its checkpoint: {seconds['flow']:.2f} s as a flow, {seconds['by_hand']:.2f} s by hand"
    yield Row("orchestration at the end of a leg of one minute", share, unit="%", at_most=1, note=note)
    busy, lasted = seconds["busy"], seconds["lasted"]
    note = f"{busy:.2f} s of processor time of the flow in {lasted:.0f} s of one leg"
    yield Row("orchestration while a leg trains", busy / lasted * 100, unit="%", at_most=1, note=note)


def main(ground: Path) -> None:
    """Runs the same legs as a flow and by hand."""
    from flowtuner.jobs.server import prefect_server

    options: dict[str, Any] = {
        "train_batch_size": 1,
        "max_train_steps": LEGS * STEPS_PER_LEG,
        "checkpoint_step_interval": STEPS_PER_LEG,
        "checkpoints_total_limit": 2,
    }
    by_hand = configure(ground, "by-hand", **options)
    _train_by_hand(by_hand)
    with prefect_server(ground / "home"), contextlib.redirect_stdout(sys.stderr):
        from flows.train import train

        configured = configure(ground, "flow", **options)
        train(config=_plain(configured))
        short = _watch_one_leg(train, ground, SHORT_STEPS)
        long = _watch_one_leg(train, ground, LONG_STEPS)
    figures = {
        "flow": _seconds_per_leg(configured),
        "by_hand": _seconds_per_leg(by_hand),
        # What a run costs at its start and end is in both: the difference is the training alone.
        "busy": long[0] - short[0],
        "lasted": long[1] - short[1],
    }
    print(json.dumps(figures))


def _watch_one_leg(train: Callable[..., object], ground: Path, steps: int) -> tuple[float, float]:
    """Processor time of the flow, and wall time, of a run that is a single leg."""
    options = {"train_batch_size": 8, "max_train_steps": steps, "checkpoint_step_interval": steps}
    configured = configure(ground, f"leg-{steps}", **options)
    before, started = _busy_s(), time.monotonic()
    train(config=_plain(configured))
    return _busy_s() - before, time.monotonic() - started


def _busy_s() -> float:
    """Processor time of the flow's own process; the engine is another one, and the server serves many runs."""
    times = psutil.Process().cpu_times()
    return times.user + times.system


def _train_by_hand(loaded: LoadedConfig) -> None:
    spec = RunSpec("by-hand", loaded, Path(loaded.config.output_dir))
    with Engine(spec, EventLog(spec.event_log, spec.run_id)) as engine:
        engine.cache_text()
        engine.cache_latents()
        position = engine.prepare()
        for leg in legs(loaded.config, position.step, position.total_steps, position.steps_per_epoch):
            engine.train(leg.until)
            engine.save_checkpoint(waits=False)


def _plain(loaded: LoadedConfig) -> dict[str, Any]:
    values = loaded.config.model_dump(mode="json")
    return {name: values[name] for name, origin in loaded.origins.items() if origin.kind != "default"}


def _seconds_per_leg(loaded: LoadedConfig) -> float:
    """From one checkpoint to the next: a leg, its checkpoint, and all that lies between."""
    log = Path(loaded.config.output_dir) / "logs" / "events.jsonl"
    times = [event.time for event in read_events(log) if event.type == CHECKPOINT and not event.data.get("is_final")]
    return statistics.median(later - earlier for earlier, later in pairwise(times))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
