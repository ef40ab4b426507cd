"""Jobs as Prefect's flow runs: started, looked after, cancelled; imports Prefect only when it is used."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flowtuner.errors import Terminal, Transient
from flowtuner.jobs.deployments import WORK_POOL
from flowtuner.jobs.settings import find_api_url

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

TRAIN = "train/train"


class PrefectAway(Transient):
    """The Prefect server does not answer."""


class NotDeployed(Terminal):
    """The Prefect server knows no deployment that trains."""


@dataclass(frozen=True)
class RunState:
    """What Prefect says of a flow run."""

    type: str
    name: str
    message: str
    has_vanished: bool = False
    """Whether its process was on this machine and is there no more."""


def start_run(
    parameters: Mapping[str, Any], job_id: str, attempt: int, environment: Mapping[str, str] | None = None
) -> str:
    """Creates the flow run of a job; asked twice for the same attempt it is the same run."""
    from prefect.exceptions import ObjectNotFound

    with prefect_client() as client:
        try:
            deployment = client.read_deployment_by_name(TRAIN)
        except ObjectNotFound as error:
            raise NotDeployed(
                f"Prefect knows no deployment {TRAIN}: run `flowtuner deploy` or `flowtuner server`"
            ) from error
        run = client.create_flow_run_from_deployment(
            deployment.id,
            parameters=dict(parameters),
            name=f"job {job_id}" + (f", attempt {attempt}" if attempt > 1 else ""),
            tags=["flowtuner", f"job:{job_id}"],
            idempotency_key=f"flowtuner-{job_id}-{attempt}",
            job_variables={"env": dict(environment)} if environment else None,
        )
        return str(run.id)


def read_states(run_ids: Iterable[str]) -> dict[str, RunState]:
    """The states of several flow runs at once; those that Prefect does not know are left out."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    wanted = [UUID(run_id) for run_id in run_ids]
    if not wanted:
        return {}
    with prefect_client() as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=wanted)))
    return {
        str(run.id): RunState(
            run.state.type.value,
            run.state.name or "",
            run.state.message or "",
            has_vanished=_has_vanished(run.infrastructure_pid),
        )
        for run in runs
        if run.state
    }


def cancel_run(run_id: str) -> None:
    """Asks a flow run to stop: it saves a checkpoint and publishes it before it leaves."""
    from prefect.client.schemas.objects import StateType
    from prefect.states import Cancelled, Cancelling

    with prefect_client() as client:
        state = client.read_flow_run(UUID(run_id)).state
        is_waiting = state is None or state.type in (StateType.SCHEDULED, StateType.PENDING)
        client.set_flow_run_state(UUID(run_id), Cancelled() if is_waiting else Cancelling(), force=is_waiting)


def mark_crashed(run_id: str) -> None:
    """Tells Prefect that a run's process is gone, which could not say so itself."""
    from prefect.states import Crashed

    with prefect_client() as client:
        client.set_flow_run_state(UUID(run_id), Crashed(message="its process is gone"), force=True)


def list_workers() -> list[dict[str, Any]]:
    """The Prefect workers of our work pool, as the tutorial looks at them."""
    with prefect_client() as client:
        found = client.read_workers_for_work_pool(WORK_POOL)
    return [
        {
            "worker_id": str(each.id),
            "name": each.name,
            "status": "idle" if str(each.status).endswith("ONLINE") else "offline",
            "gpu_name": None,
            "gpu_count": None,
            "gpu_info": {},
            "labels": {},
            "last_heartbeat": each.last_heartbeat_time.isoformat() if each.last_heartbeat_time else None,
        }
        for each in found
    ]


def count_workers() -> dict[str, int] | None:
    """How many workers there are in which state; None while Prefect does not answer."""
    try:
        states = [worker["status"] for worker in list_workers()]
    except PrefectAway:
        return None
    counts = {f"{state}_workers": states.count(state) for state in ("idle", "busy", "offline", "draining")}
    return {"total_workers": len(states)} | counts


@contextlib.contextmanager
def prefect_client() -> Iterator[SyncPrefectClient]:
    """A client of the configured Prefect server; what it cannot do is one kind of error."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    if not (find_api_url() or PREFECT_API_URL.value()):
        raise PrefectAway("Prefect is still starting")  # a client without an address would start a server of its own
    with told_as_away(), get_client(sync_client=True) as client:
        yield client


@contextlib.contextmanager
def told_as_away() -> Iterator[None]:
    """Turns everything that may go wrong between us and Prefect into PrefectAway."""
    import httpx
    from prefect.exceptions import PrefectException, PrefectHTTPStatusError

    try:
        yield
    except PrefectHTTPStatusError as error:
        raise PrefectAway(f"Prefect answered {error.response.status_code}") from error
    except (httpx.HTTPError, OSError) as error:
        raise PrefectAway(f"Prefect does not answer: {error or type(error).__name__}") from error
    except PrefectException as error:
        raise PrefectAway(f"{type(error).__name__}: {error}") from error


def _has_vanished(place: str | None) -> bool:
    # Prefect's process worker notes HOST:PID.
    host, _, pid = (place or "").rpartition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        return b"prefect" not in Path(f"/proc/{pid}/cmdline").read_bytes() if Path("/proc/self").exists() else False
    except FileNotFoundError:
        return True
    except OSError:
        return False
