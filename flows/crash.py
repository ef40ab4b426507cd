"""What a flow says when its process ended without a word; Prefect calls this with exactly these argument names."""

from __future__ import annotations

from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger
from prefect.states import Cancelled

from tasks.aftermath import find_preemption, tell_what_is_left


def report_crash(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Logs where the newest checkpoint of a crashed run is; one that a signal stopped has saved and did not crash."""
    if message := find_preemption(str(flow_run.id), flow_run.parameters):
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run.id, Cancelled(name="Preempted", message=message), force=True)
        return
    if message := tell_what_is_left(str(flow_run.id), flow_run.parameters):
        flow_run_logger(flow_run, flow).error(message)


def report_cancellation(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """The same for a cancelled run that was killed because it took too long, such as one held up by an upload."""
    if message := tell_what_is_left(str(flow_run.id), flow_run.parameters, "cancelled"):
        flow_run_logger(flow_run, flow).warning(message)
