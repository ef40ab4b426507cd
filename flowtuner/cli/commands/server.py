"""`flowtuner server`: a local Prefect server, a worker and all deployments, until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from flowtuner.cli.arguments import make_parser
from flowtuner.cli.exits import Exit
from flowtuner.cli.output import tell, write
from flowtuner.cli.processes import RUN, find_children
from flowtuner.cli.reach import require_answer
from flowtuner.engine.launch import wait_for_end
from flowtuner.jobs.server import ServerAddress, prefect_server

STOP_GRACE_S = 30.0


def run(argv: Sequence[str]) -> int:
    """Serves until it is told to stop."""
    parser = make_parser("server", "Runs a local Prefect server, a worker and all deployments.")
    parser.add_argument("--working-dir", metavar="FOLDER", type=Path, help="where config/ is (default: here)")
    known = parser.parse_args(argv)
    tell("starting the Prefect server ...")
    with contextlib.suppress(KeyboardInterrupt), _stopped_by_sigterm(), prefect_server() as address:
        if not address.is_ours:
            require_answer(address.api_url)
        from flowtuner.jobs.deploy import deploy

        report = deploy(known.working_dir)
        with _worker(report.work_pool) as worker:
            _tell_address(address, report.deployments)
            code = worker.wait()
        tell(f"flowtuner: the worker ended with exit code {code}")
        return Exit.FAILED
    return Exit.OK


def _tell_address(address: ServerAddress, deployments: Sequence[str]) -> None:
    write(f"Prefect UI:   {address.ui_url}")
    if address.auth:
        write(f"Password:     {address.auth}")
    write(f"API:          PREFECT_API_URL={address.api_url}")
    write(f"Deployments:  {', '.join(deployments)}")
    write("Ctrl-C stops the worker and the server; runs under way save a checkpoint.")


@contextlib.contextmanager
def _worker(pool: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    # A session of its own: Ctrl-C must not reach the runs twice.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        try:
            _stop_runs(process.pid)
        finally:  # also after a second Ctrl-C
            _end(process)


def _stop_runs(worker: int) -> None:
    # Before their worker, which would kill them, and while the server is there to be told how they ended.
    runs = find_children(worker, RUN)
    if runs:
        tell("stopping the runs under way: they save a checkpoint ...")
    for pid in runs:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    for pid in runs:
        wait_for_end(pid, STOP_GRACE_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
