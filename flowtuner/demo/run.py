"""`flowtuner demo` from start to end: prepare, train through the ordinary command, judge before against after."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import flowtuner
from flowtuner import durable
from flowtuner.cli.arguments import Source
from flowtuner.cli.exits import Exit
from flowtuner.cli.output import tell, write
from flowtuner.demo.scores import SCORES, SHEET, Comparison, read_comparison
from flowtuner.errors import ConfigError, EngineFault, Fault

PLACE = "FLOWTUNER_DEMO_DIR"  # what the example's files call the folder
EXAMPLE = Path(flowtuner.__file__).parent / "config" / "examples" / "demo" / "config.json"
MARK = "demo.json"
PARTS = ("model", "pictures", "run", "published", MARK, SHEET, SCORES)
WANTED_SHARE = 0.6
LOG_TAIL_LINES = 15


def run(argv: Sequence[str]) -> int:
    """Runs the demo; 0 only if the trained model draws what it is asked for."""
    started = time.monotonic()
    wishes = _parse(argv)
    folder: Path = wishes.output.expanduser().absolute()
    # One thread: the same result on any number of cores, and no collapse where others use them.
    os.environ |= {PLACE: str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    _prepare(folder, wishes.seed)
    from flowtuner.cli.training import run_training

    code = run_training(Source(config_file=EXAMPLE, values={"seed": wishes.seed}))
    if code != Exit.OK:
        return code
    tell("\nJudging: the same prompts, drawn by the untrained and by the trained model ...")
    run_child("flowtuner.demo.evaluate", folder / "run" / "logs" / "run.json", folder)
    comparison = read_comparison(folder)
    durable.write_json(folder / MARK, {"seed": wishes.seed, "is_finished": True})
    _report(folder, comparison, time.monotonic() - started)
    return Exit.OK if comparison.after.both >= WANTED_SHARE else Exit.FAILED


def make_room(folder: Path, seed: int) -> bool:
    """Whether an unfinished demo goes on in a folder; if not, the folder is cleared of what an earlier one left."""
    try:
        return _make_room(folder, seed)
    except OSError as error:
        problem = f"the folder cannot be used: {error.strerror}"
        raise ConfigError([Fault("--output", str(folder), "", problem, "a folder you can write to")]) from error


def run_child(module: str, *arguments: object) -> None:
    """Runs a module of the demo that needs torch, in a process of its own."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        tail = "\n".join(f"    {line}" for line in done.stdout.splitlines()[-LOG_TAIL_LINES:])
        raise EngineFault(f"{module} ended with exit code {done.returncode}:\n{tail}")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="flowtuner demo",
        description="Builds a tiny model and a data set of coloured shapes, trains it through the ordinary `train` "
        "flow, publishes it to a folder and shows that it learned. Needs neither network nor configuration.",
        allow_abbrev=False,
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed: other pictures, another model (default 0)")
    parser.add_argument(
        "--output", type=Path, default=Path("demo-output"), metavar="FOLDER", help="default: %(default)s"
    )
    wishes = parser.parse_args(argv)
    if wishes.seed < 0:
        parser.error(f"--seed: got {wishes.seed}; allowed: 0 or more")
    return wishes


def _prepare(folder: Path, seed: int) -> None:
    if make_room(folder, seed):
        tell(f"Going on with the demo in {folder}.")
        return
    tell("Preparing: a tiny model and 360 captioned pictures of coloured shapes ...")
    started = time.monotonic()
    run_child("flowtuner.demo.prepare", folder, seed)
    durable.write_json(folder / MARK, {"seed": seed, "is_finished": False})
    tell(f"Prepared in {time.monotonic() - started:.0f} s: {folder / 'model'}, {folder / 'pictures'}")


def _make_room(folder: Path, seed: int) -> bool:
    mark = folder / MARK
    if mark.is_file() and durable.read_json(mark) == {"seed": seed, "is_finished": False}:
        return True
    if folder.is_dir() and any(folder.iterdir()) and not mark.is_file() and not _is_only_ours(folder):
        problem = "the folder holds files that are not the demo's"
        raise ConfigError([Fault("--output", str(folder), "", problem, "a new or empty folder, or an earlier demo's")])
    for name in PARTS:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    return False


def _is_only_ours(folder: Path) -> bool:
    # What a preparation that was interrupted leaves behind.
    return {path.name for path in folder.iterdir()} <= {"model", "model-tmp", "pictures"}


def _report(folder: Path, comparison: Comparison, seconds: float) -> None:
    before, after = comparison.before, comparison.after
    write(f"\nThe demo took {seconds:.0f} s. Of {comparison.prompts} prompts, each a colour and a shape:")
    write(f"  untrained model   colour right {before.colour:4.0%}   colour and shape right {before.both:4.0%}")
    write(f"  trained model     colour right {after.colour:4.0%}   colour and shape right {after.both:4.0%}")
    if after.both < WANTED_SHARE:
        write(f"That is less than the {WANTED_SHARE:.0%} that a demo has to reach: something is wrong.")
    write(f"\nBefore and after:   {folder / SHEET}")
    write(f"Everything else:    {folder}/ (run: checkpoints, validation, logs; published: verified copies)")
    write("What to do next:")
    write("  look at the run     flowtuner server   (then open the Prefect UI it names)")
    write(f"  your own pictures   copy {EXAMPLE.parent.parent / 'pixart_sigma_lora'}/ to config/mine/, edit it, then")
    write("                      flowtuner check --env mine && flowtuner train --env mine")
