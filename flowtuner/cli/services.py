"""What stands beside the API: a Prefect server of our own where none is configured, the deployments, and a worker."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from flowtuner.cli.output import tell
from flowtuner.cli.reach import require_answer
from flowtuner.cli.worker import LocalWorker
from flowtuner.errors import FlowtunerError
from flowtuner.jobs.server import ServerAddress, default_home, prefect_server

LOG = logging.getLogger(__name__)
LOOK_S = 1.0
PAUSE_S = 5.0


class Jobs(Protocol):
    """What begins once Prefect and a worker are there."""

    def start(self) -> None:
        """Begins; may be told so again."""


class LocalServices:
    """Keeps Prefect and a worker alive, in a thread of its own; whichever is killed is started again."""

    def __init__(self, working_dir: Path, on_ready: Callable[[ServerAddress, tuple[str, ...]], None]) -> None:
        self._working_dir = working_dir
        self._on_ready = on_ready
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._fault: str | None = "Prefect is still starting"
        self.ui_url: str | None = None

    def start(self, jobs: Jobs) -> None:
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

    def _serve(self, jobs: Jobs) -> None:
        while not self._stop.is_set():
            try:
                with prefect_server() as address:
                    self._keep(address, jobs)
            except FlowtunerError as error:
                self._tell_once(str(error))
                self._stop.wait(PAUSE_S)

    def _keep(self, address: ServerAddress, jobs: Jobs) -> None:
        if not address.is_ours:
            require_answer(address.api_url)
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()  # the address was not known yet when Prefect was imported
        from flowtuner.jobs.deploy import deploy
        from flowtuner.jobs.dispatch import told_as_away

        with told_as_away():
            report = deploy(self._working_dir)
        worker = LocalWorker(default_home(), report.work_pool, address.api_url)
        try:
            self._fault, self.ui_url = None, address.ui_url
            jobs.start()
            self._on_ready(address, report.deployments)
            self._look_after(address, worker)
        finally:
            worker.end()

    def _look_after(self, address: ServerAddress, worker: LocalWorker) -> None:
        while not self._stop.wait(LOOK_S):
            try:
                if address.revive():
                    tell("flowtuner: the Prefect server was gone and runs again")
                self._fault = None
            except FlowtunerError as error:  # worker and runs do without it for a while
                self._tell_once(str(error))
                continue
            if not worker.is_alive:
                tell("flowtuner: the worker was gone and is started again")
                worker.restart()

    def _tell_once(self, fault: str) -> None:
        if fault != self._fault:
            tell(f"flowtuner: {fault}\ntrying again ...")
        self._fault = fault
