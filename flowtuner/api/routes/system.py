"""Health, readiness and the machine itself."""

from __future__ import annotations

import datetime
import os
import signal
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import select

from flowtuner.api.auth.caller import Caller
from flowtuner.api.deps import DatabaseDep, Requires
from flowtuner.api.errors import ApiError, refusals
from flowtuner.engine.hardware import list_gpus, read_load, read_memory_percent
from flowtuner.errors import FlowtunerError
from flowtuner.jobs import store
from flowtuner.jobs.dispatch import read_states
from flowtuner.records.database import Database
from flowtuner.records.tables import Setting

router = APIRouter(tags=["system"])
BEGAN = time.monotonic()
NOBODY = "00000000-0000-0000-0000-000000000000"


@router.get("/health")
def read_health() -> dict[str, str]:
    """Says that the server answers."""
    return {"status": "healthy", "mode": "unified"}


@router.get("/ready", responses=refusals(503))
async def read_readiness(request: Request, database: DatabaseDep) -> dict[str, str]:
    """Says whether a job could start: the database and Prefect answer, and a worker is there."""
    services = request.app.state.services
    fault = services.describe_fault() if services else None
    fault = fault or await run_in_threadpool(_find_fault, database)
    if fault:
        raise ApiError(503, "not_ready", fault, headers={"Retry-After": "2"})
    return {"status": "ready"}


@router.get("/api/system/status", responses=refusals(401, 403))
def read_status(
    caller: Annotated[Caller, Depends(Requires("system.view"))],
    database: DatabaseDep,
    include_allocation: bool = False,
) -> dict[str, Any]:
    """The machine's load and devices, and who has them."""
    gpus = list_gpus()
    status: dict[str, Any] = {
        "timestamp": datetime.datetime.now(datetime.UTC).isoformat(),
        "uptime_seconds": round(time.monotonic() - BEGAN, 1),
        "load_avg_5min": read_load(),
        "memory_percent": read_memory_percent(),
        "gpus": [vars(gpu) for gpu in gpus],
        "gpu_inventory": {"backend": "cuda" if gpus else "cpu", "count": len(gpus), "capabilities": {}},
    }
    if not include_allocation:
        return status
    with database.reading() as session:
        active = store.list_jobs(session, store.ACTIVE)
    holders = {index: job.id for job in active for index in job.allocated_gpus}
    devices = [
        {
            "index": gpu.index,
            "name": gpu.name,
            "memory_gb": round(gpu.memory_gb, 1),
            "allocated": gpu.index in holders,
            "job_id": holders.get(gpu.index),
        }
        for gpu in gpus
    ]
    allocation = {
        "allocated_gpus": sorted(holders),
        "available_gpus": [gpu.index for gpu in gpus if gpu.index not in holders],
        "running_local_jobs": len(active),
        "devices": devices,
    }
    return status | {"gpu_allocation": allocation}


@router.post("/api/system/shutdown", dependencies=[Depends(Requires("system.shutdown"))], responses=refusals(401, 403))
def shut_down() -> dict[str, str]:
    """Stops the server as Ctrl-C does: runs under way save a checkpoint first."""
    os.kill(os.getpid(), signal.SIGTERM)
    return {"status": "shutting_down", "message": "The server stops; runs under way save a checkpoint first"}


def _find_fault(database: Database) -> str | None:
    with database.reading() as session:
        session.scalar(select(Setting.name).limit(1))
    try:
        read_states([NOBODY])
    except FlowtunerError as error:
        return str(error)
    return None
