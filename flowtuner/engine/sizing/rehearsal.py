"""A few real steps with random weights and grey pictures: what they take of the device, and how long."""

from __future__ import annotations

import gc
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from flowtuner.engine.assembly import assemble
from flowtuner.engine.feed import Batch, Feed
from flowtuner.engine.loop import NEVER, train
from flowtuner.engine.meter import Meter, wall_clock
from flowtuner.engine.precision import Precision
from flowtuner.engine.sizing.work import Work

STEPS = 3
PATIENCE_S = 20.0
"""After that two steps have to do: the first one still looks for its memory."""

SEED = 0
PROCESS = Path("/proc/self")


@dataclass(frozen=True)
class Measured:
    """What was seen."""

    training: int
    """Bytes of the device at their highest while steps are made; on a CPU all that the process holds."""

    encoding: int
    step_seconds: float
    picture_seconds: float


def rehearse(work: Work, precision: Precision, device: torch.device, latent: torch.Size) -> Measured:
    """Encodes pictures once and makes a few steps on the device."""
    encoding, picture_seconds = _rehearse_encoding(work, precision, device)
    gc.collect()
    peak = _watch(device)
    batch = work.batch(latent, precision.base).to(device, precision.base)
    trainer = assemble(
        work.family.config,
        work.family,
        precision,
        device,
        SEED,
        STEPS,
        lambda seed: cast("Feed", _SameBatch(batch)),
        load=work.family.build_model,
    )
    meter = Meter(lambda kind, data: None, STEPS, STEPS, wall_clock)
    seconds = []
    for step in range(1, STEPS + 1):
        begun = time.perf_counter()
        train(trainer, step, NEVER, meter)
        _finish(device)
        seconds.append(time.perf_counter() - begun)
        if step > 1 and sum(seconds) > PATIENCE_S:
            break
    return Measured(peak(), encoding, statistics.median(seconds[1:]), picture_seconds)


@dataclass(frozen=True)
class _SameBatch:
    """A feed that has one micro batch only."""

    only: Batch

    def batch(self, number: int) -> Batch:
        """The one."""
        return self.only


def _rehearse_encoding(work: Work, precision: Precision, device: torch.device) -> tuple[int, float]:
    peak = _watch(device)
    vae = work.family.build_vae(precision.base, device)
    pixels = work.draw_pixels(work.family.config.vae_batch_size, precision.base).to(device)
    begun = time.perf_counter()
    vae.encode(pixels)
    _finish(device)
    if device.type == "cuda":  # the first time kernels are looked for
        begun = time.perf_counter()
        vae.encode(pixels)
        _finish(device)
    return peak(), (time.perf_counter() - begun) / len(pixels)


def read_resident() -> int:
    """How many bytes this process holds."""
    return _read_status("VmRSS")


def _watch(device: torch.device) -> Callable[[], int]:
    """Begins to watch; asked later, it says what was held at most since."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: torch.cuda.max_memory_reserved(device)
    (PROCESS / "clear_refs").write_text("5")
    return lambda: _read_status("VmHWM")


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _read_status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", (PROCESS / "status").read_text(), re.MULTILINE)
    assert found, name
    return int(found[1]) << 10
