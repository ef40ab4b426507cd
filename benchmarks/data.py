"""Data sets of very many pictures: memory and time of a scan, and what the checksums of cached rows cost."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.harness import Row, compare
from flowtuner.engine.cache.store import Store

FILES = 1_000_000
MOST_LINKS = 30_000
EDGE = 8
ROWS = 512
# The latent of a picture of 1024 pixels in bfloat16: four channels of 128 x 128.
LATENT = (4, 128, 128)


def measure_scan(folder: Path, files: int = FILES) -> list[Row]:
    """Memory that a scan adds to its process, and the time of the second scan over the first's."""
    _write_files(folder / "pictures", files)
    first, second = _scan(folder), _scan(folder)
    name = f"scan of {files:,} pictures in one folder"
    return [
        Row(f"{name}: memory it adds", first["added_mib"], unit="MiB", at_most=150),
        Row(f"{name}: the second over the first", second["seconds"] / first["seconds"], at_most=0.5),
        Row(f"{name}: the second", second["seconds"], unit="s", note=f"{first['seconds']:.0f} s the first time"),
    ]


def measure_checksums(folder: Path, rounds: int) -> Row:
    """Reading rows for the first time, with their checksums compared, over gathering the same bytes without."""
    store = Store(folder / "store")
    keys = [f"{number:064d}" for number in range(ROWS)]
    with store.writer() as writer:
        for number, key in enumerate(keys):
            writer.put(key, {"latent": torch.full(LATENT, float(number), dtype=torch.bfloat16)}, {})
            writer.end_batch()

    def read(store: Store) -> None:
        for start in range(0, ROWS, 8):
            torch.stack([store.read(key)["latent"] for key in keys[start : start + 8]])

    read(store)
    fresh = (Store(store.root) for _ in itertools.count())
    ratio = compare(lambda: read(next(fresh)), lambda: read(_proven(Store(store.root), store)), rounds)
    return Row("first read of a cached row (128 KiB) over a later one", ratio, note="once per row and process")


def _proven(store: Store, other: Store) -> Store:
    store._proven = other._proven
    return store


def _write_files(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        path = folder / f"{number:07d}.png"
        if number % MOST_LINKS:
            os.link(folder / f"{number - number % MOST_LINKS:07d}.png", path)
        else:
            Image.new("RGB", (EDGE, EDGE), (number // MOST_LINKS, 0, 0)).save(path)


def _scan(folder: Path) -> dict[str, Any]:
    """One scan in a process of its own, which says what it took."""
    done = subprocess.run([sys.executable, "-c", SCAN, str(folder)], capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


SCAN = """
import json, sys, time
from pathlib import Path
from flowtuner.engine.data.sampler import Sampler
from flowtuner.engine.data.scan import scan_datasets
from flowtuner.options import DatasetEntry, TrainingConfig

def anonymous():
    return int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1]) / 1024

root = Path(sys.argv[1])
entry = DatasetEntry(id="many", instance_data_dir=root / "pictures", resolution=8, resolution_type="pixel")
config = TrainingConfig(
    model_family="pixart_sigma", model_type="full", output_dir=root, data_backend_config=root / "data.json",
    optimizer="torch-adamw", aspect_bucket_alignment=8, max_train_steps=10,
)
before, started, most = anonymous(), time.monotonic(), 0

def watch(done, total):
    global most
    most = max(most, anonymous())

scan = scan_datasets([entry], config, index_dir=root / "index", report=watch)
seconds = time.monotonic() - started
sampler = Sampler.for_run(scan.samples, [entry], config, seed=0)
sampler.batch(len(scan.samples) // 8)
print(json.dumps({"seconds": seconds, "added_mib": max(most, anonymous()) - before, "samples": len(scan.samples)}))
"""
