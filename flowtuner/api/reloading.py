"""The server that `--reload` starts again with every change of the code; Prefect and the worker stay as they are."""

from __future__ import annotations

import os

from fastapi import FastAPI

from flowtuner.api.app import create_app
from flowtuner.api.settings import ServerSettings
from flowtuner.jobs.loop import JobsLoop
from flowtuner.jobs.server import ui_url_of

IS_TLS = "FLOWTUNER_RELOADED_TLS"


class Attached:
    """Prefect and a worker that another process looks after."""

    def __init__(self) -> None:
        self.ui_url: str | None = ui_url_of(os.environ.get("PREFECT_API_URL", "")) or None

    def start(self, jobs: JobsLoop) -> None:
        """They are there already."""
        jobs.start()

    def describe_fault(self) -> str | None:
        """Whoever looks after them tells of their faults."""
        return None


def make_app() -> FastAPI:
    """The application, with the settings of the environment."""
    return create_app(ServerSettings.from_environment(is_tls=bool(os.environ.get(IS_TLS))), Attached())
