"""The engine's counterpart of `benchmarks.bare` as a script: a fresh process, an engine process, a first step.

`python -m benchmarks.engine_script GROUND NAME` prints when the first step was done and what memory the engine took.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

from benchmarks.bare import STEPS_OF_SCRIPT
from benchmarks.ground import configure
from flowtuner.engine.events import EventLog
from flowtuner.engine.launch import Engine
from flowtuner.engine.run import RunSpec


def main(ground: Path, name: str) -> None:
    """Caches, trains a few steps and reports."""
    started = float(os.environ["BENCH_STARTED"])
    output = ground / "runs" / name
    spec = RunSpec(name, configure(ground, name), output)
    with Engine(spec, EventLog(spec.event_log, name)) as engine:
        engine.cache_text()
        engine.cache_latents()
        engine.prepare()
        engine.train(1)
        first_step_s = time.time() - started
        engine.train(1 + STEPS_OF_SCRIPT)
        engine.save_checkpoint()
    # The largest of the children that ended: the engine's process.
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({"first_step_s": first_step_s, "peak_kib": peak_kib}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
