"""What a flow says when its process crashed; Prefect calls this with exactly these argument names."""

from __future__ import annotations

from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger

from tasks.aftermath import tell_what_is_left


def report_crash(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Logs where the newest checkpoint of a crashed run is and how to go on."""
    flow_run_logger(flow_run, flow).error(tell_what_is_left(str(flow_run.id), flow_run.parameters))
