"""What this machine has: GPUs, memory, load; read from the driver's own tool and the kernel, without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

QUERY = ("--query-gpu=index,name,memory.total,memory.used,utilization.gpu", "--format=csv,noheader,nounits")
TIMEOUT_S = 5.0
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Gpu:
    """One GPU as the driver sees it."""

    index: int
    name: str
    memory_gb: float
    used_gb: float
    utilization: float


def list_gpus() -> list[Gpu]:
    """The GPUs here; none where there is no driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        answer = subprocess.run([tool, *QUERY], capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [_parse(line) for line in answer.stdout.splitlines() if line.count(",") >= 4]


def read_memory_percent() -> float | None:
    """How much of the memory is in use; None where the kernel does not say."""
    values = _read_memory()
    return round(100 * (1 - values["MemAvailable"] / values["MemTotal"]), 1) if values else None


def read_memory_bytes() -> int:
    """How much memory there is for this process; 0 where the kernel does not say."""
    here = _read_memory().get("MemTotal", 0) << 10
    try:
        allowed = int(CONTAINER_LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max": the container, if there is one, has no limit of its own
        return here
    return min(here, allowed)


def _read_memory() -> dict[str, int]:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


def read_load() -> float:
    """The load of the last five minutes."""
    return os.getloadavg()[1]


def _parse(line: str) -> Gpu:
    index, name, total, used, busy = (part.strip() for part in line.split(",")[:5])
    return Gpu(int(index), name, _number(total) / 1024, _number(used) / 1024, _number(busy))


def _number(text: str) -> float:
    return float(text) if text.replace(".", "", 1).isdigit() else 0.0  # "[N/A]" on some cards
