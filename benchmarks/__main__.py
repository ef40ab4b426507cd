"""`python -m benchmarks` (`make bench`): measures everything, prints one table, exit code 1 if a target is missed."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

# One thread, before torch reads it: two on a busy machine vary twentyfold, and ratios with them.
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

from benchmarks.ground import build_ground
from benchmarks.harness import Row, format_table

SAVED_TO = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
NOISY = 0.03


def main() -> int:
    """Runs the sections that were asked for."""
    wishes = _parse()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="flowtuner-bench-") as name:
        rows = list(_measure(Path(name), wishes.only, wishes.rounds))
    noise = abs(rows[0].figure - 1)
    table = format_table(rows, noise)
    print(f"\n{table}\n\nMeasured in {time.monotonic() - started:.0f} s with one thread on {_describe_machine()}.")
    if noise > NOISY:
        print(f"Equal things differ by {noise:.1%} here: other programs are running. Repeat it on a quiet machine.")
    if wishes.save:
        _save(table)
    missed = [row.name for row in rows if row.is_missed(noise)]
    for row in missed:
        print(f"missed: {row}")
    return 1 if missed else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="*", default=[*SECTIONS], choices=SECTIONS, help="leave out the others")
    parser.add_argument("--rounds", type=int, default=6, help="turns per comparison (default %(default)s)")
    parser.add_argument("--save", action="store_true", help=f"add a dated section to {SAVED_TO.name}")
    return parser.parse_args()


def _measure(folder: Path, wanted: Iterable[str], rounds: int) -> Iterable[Row]:
    import torch

    from benchmarks.steps import measure_noise

    torch.set_num_threads(1)
    ground = build_ground(folder)
    yield _told(measure_noise(ground, rounds))
    for name in wanted:
        for row in SECTIONS[name](ground, rounds):
            yield _told(row)


def _measure_steps(ground: Path, rounds: int) -> Iterable[Row]:
    from benchmarks.steps import measure_steps, measure_trimming

    yield from measure_steps(ground, rounds)
    yield measure_trimming(ground, rounds + 4)


def _measure_modes(ground: Path, rounds: int) -> Iterable[Row]:
    from benchmarks.steps import measure_modes

    yield from measure_modes(ground, rounds)


def _measure_pauses(ground: Path, rounds: int) -> Iterable[Row]:
    from benchmarks.pauses import measure_pause

    yield measure_pause(ground, rounds)


def _measure_caches(ground: Path, rounds: int) -> Iterable[Row]:
    from benchmarks.caching import measure_latents, measure_restart, measure_text

    yield measure_latents(ground, max(rounds // 2, 1))
    yield measure_text(ground, max(rounds // 2, 1))
    yield measure_restart(ground / "restart")


def _measure_processes(ground: Path, rounds: int) -> Iterable[Row]:
    from benchmarks.processes import measure_processes

    return measure_processes(ground, max(rounds // 6, 1))


def _measure_orchestration(ground: Path, rounds: int) -> Iterable[Row]:
    from benchmarks.orchestration import measure_orchestration

    yield from measure_orchestration(ground)


def _measure_data(ground: Path, rounds: int) -> Iterable[Row]:
    from benchmarks.data import measure_checksums, measure_scan

    yield measure_checksums(ground / "checksums", rounds)
    yield from measure_scan(ground / "many files")


def _measure_uploads(ground: Path, rounds: int) -> Iterable[Row]:
    from benchmarks.steps import open_steps
    from benchmarks.uploads import measure_training, measure_uploads

    yield from measure_uploads(ground, max(rounds // 2, 1))
    yield measure_training(ground, open_steps(ground), rounds)


def _measure_http(ground: Path, rounds: int) -> Iterable[Row]:
    from benchmarks.http import measure_http

    yield from measure_http(ground, rounds)


SECTIONS: dict[str, Callable[[Path, int], Iterable[Row]]] = {
    "steps": _measure_steps,
    "modes": _measure_modes,
    "pauses": _measure_pauses,
    "caches": _measure_caches,
    "processes": _measure_processes,
    "orchestration": _measure_orchestration,
    "data": _measure_data,
    "uploads": _measure_uploads,
    "http": _measure_http,
}


def _told(row: Row) -> Row:
    print(f"{row.name}: {row.figure:.3g} {row.unit}", file=sys.stderr, flush=True)
    return row


def _describe_machine() -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "diffusers", "prefect"))
    return f"{platform.machine()} with {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def _save(table: str) -> None:
    if not SAVED_TO.exists():
        SAVED_TO.write_text(
            "# Benchmarks\n\nWhat `make bench` printed, newest last. Every figure is a ratio or a count: "
            "absolute times depend on the machine and its load.\n"
        )
    with SAVED_TO.open("a") as file:
        file.write(f"\n## {datetime.date.today().isoformat()}, `make bench`, {_describe_machine()}\n\n{table}\n")
    print(f"added to {SAVED_TO}")


if __name__ == "__main__":
    sys.exit(main())
