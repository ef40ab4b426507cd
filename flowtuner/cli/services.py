"""What stands beside the API: a Prefect server of our own where none is configured, the deployments, and a worker."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flowtuner.cli.output import tell
from flowtuner.cli.processes import RUN, find_children
from flowtuner.cli.reach import require_answer
from flowtuner.engine.launch import wait_for_end
from flowtuner.errors import FlowtunerError
from flowtuner.jobs.server import ServerAddress, prefect_server

if TYPE_CHECKING:
    from flowtuner.jobs.loop import JobsLoop

LOG = logging.getLogger(__name__)
STOP_GRACE_S = 30.0
LOOK_S = 1.0
PAUSE_S = 5.0


class LocalServices:
    """Keeps Prefect and a worker alive, in a thread of its own; whichever is killed is started again."""

    def __init__(self, working_dir: Path, on_ready: Callable[[ServerAddress, tuple[str, ...]], None]) -> None:
        self._working_dir = working_dir
        self._on_ready = on_ready
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._fault: str | None = "Prefect is still starting"
        self._worker: subprocess.Popen[bytes] | None = None

    def start(self, jobs: JobsLoop) -> None:
        """Begins; starts the jobs once everything is there."""
        self._thread = threading.Thread(target=self._serve, args=(jobs,), name="services", daemon=True)
        self._thread.start()

    def describe_fault(self) -> str | None:
        """Why jobs cannot run yet; None once they can."""
        return self._fault

    def close(self) -> None:
        """Stops the runs under way, which save a checkpoint, then the worker and the server."""
        self._stop.set()
        if self._thread:
            self._thread.join()

    def _serve(self, jobs: JobsLoop) -> None:
        while not self._stop.is_set():
            try:
                with prefect_server() as address:
                    self._keep(address, jobs)
            except FlowtunerError as error:
                self._fault = str(error)
                tell(f"flowtuner: {error}\ntrying again ...")
                self._stop.wait(PAUSE_S)

    def _keep(self, address: ServerAddress, jobs: JobsLoop) -> None:
        if not address.is_ours:
            require_answer(address.api_url)
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()  # the address was not known yet when Prefect was imported
        from flowtuner.jobs.deploy import deploy

        report = deploy(self._working_dir)
        self._worker = _start_worker(report.work_pool)
        try:
            self._fault = None
            jobs.start()
            self._on_ready(address, report.deployments)
            self._look_after(address, report.work_pool)
        finally:
            _stop_runs(self._worker.pid)
            _end(self._worker)

    def _look_after(self, address: ServerAddress, pool: str) -> None:
        while not self._stop.wait(LOOK_S):
            assert self._worker is not None
            if address.revive():
                tell("flowtuner: the Prefect server was gone and runs again")
            if self._worker.poll() is not None:
                tell(f"flowtuner: the worker ended with {self._worker.returncode} and is started again")
                time.sleep(LOOK_S)
                self._worker = _start_worker(pool)


def _start_worker(pool: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    environment = {"PREFECT_WORKER_QUERY_SECONDS": "2"} | dict(os.environ)
    # A session of its own: Ctrl-C must not reach the runs twice.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)


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
