"""Has a process of its own look at what a run takes; imports no torch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from flowtuner.engine.estimate import estimate_memory, find_device
from flowtuner.engine.families import choose_source
from flowtuner.engine.launch import QUIET
from flowtuner.engine.run import RunSpec
from flowtuner.engine.sizing.report import Sizing
from flowtuner.errors import EngineFault
from flowtuner.options import LoadedConfig

COMMAND = (sys.executable, "-m", "flowtuner.engine.sizing.child")
COUNT_LIMIT_S = 180.0
REHEARSAL_LIMIT_S = 300.0
NAME_OF_ERROR = re.compile(r"^flowtuner\.errors\.\w+: ")
NEGLIGIBLE = 50
"""Where all that is certain is this part of the room, nobody has to look closer."""


def measure(loaded: LoadedConfig, *, rehearses: bool) -> Sizing:
    """Counts what a run takes, and tries a few steps if it fits (EngineFault if it could not be counted)."""
    threads = loaded.config.torch_num_threads or len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="flowtuner-") as folder:
        spec = RunSpec("estimate", loaded, Path(folder))
        path = spec.output_dir / "run.json"
        spec.save(path)
        command = [*COMMAND, str(os.getpid()), str(path)]
        environment = {"OMP_NUM_THREADS": str(threads)} | QUIET | dict(os.environ) | spec.environment()
        limit = REHEARSAL_LIMIT_S if rehearses else COUNT_LIMIT_S
        log = Path(folder) / "log"
        with log.open("w") as errors:
            child = subprocess.Popen(
                [*command, *(["--rehearse"] if rehearses else [])],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            try:
                output, _ = child.communicate(timeout=limit)
                unmeasured = "" if child.returncode == 0 else _read_reason(child.returncode, log)
            except subprocess.TimeoutExpired:
                child.kill()
                output, _ = child.communicate()
                unmeasured = f"nothing more was found within {limit:.0f} s"
    return _read(output, unmeasured)


def look_closer(loaded: LoadedConfig) -> Sizing | None:
    """What a run takes, counted to its activations, if its model is of a size at which that matters."""
    kind, room = find_device()
    found = estimate_memory(loaded.config, kind)
    is_here = Path(choose_source(loaded.config)).expanduser().exists()
    if not room or (found.total * NEGLIGIBLE < room if found else is_here):
        return None  # small, or a folder whose faults are told already; of what is on the Hub the shapes are known
    return measure(loaded, rehearses=False)


def _read(output: str, unmeasured: str) -> Sizing:
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise EngineFault(f"what the run takes could not be counted: {unmeasured}")
    return Sizing.from_json(json.loads(lines[-1]) | {"unmeasured": unmeasured})


def _read_reason(code: int, log: Path) -> str:
    if code == -signal.SIGKILL:
        return "out of memory: the process was killed"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return NAME_OF_ERROR.sub("", lines[-1]) if lines else "the process ended without a word"
