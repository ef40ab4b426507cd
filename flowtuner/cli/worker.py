"""The local worker of a server: started, found again after its server was killed, and ended with its runs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from flowtuner import durable
from flowtuner.cli.output import tell
from flowtuner.cli.processes import RUN, find_processes
from flowtuner.engine.launch import wait_for_end

STOP_GRACE_S = 30.0
MARK = b"worker\0start"


class LocalWorker:
    """One Prefect process worker per home; a server that comes after a killed one takes over what is left of it."""

    def __init__(self, home: Path, pool: str, api_url: str) -> None:
        self._record = home / "server" / "worker.json"
        self._pool = pool
        self._api_url = api_url
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = self._find() or self._start()

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        if self._process is not None:
            return self._process.poll() is None
        return self.pid in find_processes(MARK, self._api_url)

    def restart(self) -> None:
        """Starts it again after it died."""
        self.pid = self._start()

    def end(self) -> None:
        """Has the runs under way save a checkpoint, then ends the worker."""
        try:
            self._stop_runs()
        finally:  # also after a second Ctrl-C
            self._stop()

    def _find(self) -> int | None:
        try:
            pid = int(durable.read_json(self._record)["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return pid if pid in find_processes(MARK, self._api_url) else None

    def _start(self) -> int:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", self._pool, "--type", "process"]
        environment = {"PREFECT_WORKER_QUERY_SECONDS": "2"} | dict(os.environ)
        # A session of its own: Ctrl-C must not reach the runs twice.
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
        durable.write_json(self._record, {"pid": self._process.pid})
        return self._process.pid

    def _stop_runs(self) -> None:
        # Before their worker, which would kill them, and while the server is there to be told how they ended; those
        # of a worker that was killed too.
        runs = find_processes(RUN, self._api_url)
        if runs:
            tell("stopping the runs under way: they save a checkpoint ...")
        for pid in runs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for pid in runs:
            wait_for_end(pid, STOP_GRACE_S)

    def _stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        if self._process is None:
            if not wait_for_end(self.pid, STOP_GRACE_S):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            return
        try:
            self._process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
