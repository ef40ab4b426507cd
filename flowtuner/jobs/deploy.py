"""Registers Flowtuner on whatever Prefect API is configured: block types, the work pool, the deployments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from prefect import Flow
from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from flowtuner.jobs.deployments import DEPLOYMENTS, WORK_POOL, Deployment
from flowtuner.publishing.registry import known_destinations


@dataclass(frozen=True)
class DeployReport:
    """What stands on the server now."""

    api_url: str
    work_pool: str
    deployments: tuple[str, ...]
    block_types: tuple[str, ...]


def deploy(working_dir: Path | None = None, work_pool: str = WORK_POOL) -> DeployReport:
    """Registers everything, or brings it up to date; schedules that exist are left as their owners set them."""
    folder = (working_dir or Path.cwd()).resolve()
    block_types = register_block_types()
    with get_client(sync_client=True) as client:
        _ensure_work_pool(client, work_pool)
        names = tuple(_register(client, deployment, folder, work_pool) for deployment in DEPLOYMENTS)
        return DeployReport(str(client.api_url), work_pool, names, block_types)


def register_block_types() -> tuple[str, ...]:
    """Registers the type of every destination that is a block, and names them."""
    # A third-party destination need not be a block.
    kinds = [kind for kind in known_destinations().values() if isinstance(kind, type) and issubclass(kind, Block)]
    for kind in kinds:
        kind.register_type_and_schema(_sync=True)  # type: ignore[call-arg]
    return tuple(kind.get_block_type_slug() for kind in kinds)


def _ensure_work_pool(client: SyncPrefectClient, name: str) -> None:
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        try:
            client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        except ObjectAlreadyExists:
            return  # somebody else deployed at the same time


def _register(client: SyncPrefectClient, deployment: Deployment, folder: Path, work_pool: str) -> str:
    flow = cast("Flow[..., Any]", load_flow_from_entrypoint(deployment.entrypoint, use_placeholder_flow=False))
    full_name = f"{flow.name}/{deployment.name}"
    client.create_deployment(
        flow_id=client.create_flow_from_name(flow.name),
        name=deployment.name,
        description=deployment.description,
        tags=list(deployment.tags),
        entrypoint=deployment.entrypoint,
        work_pool_name=work_pool,
        schedules=_schedules(client, deployment, full_name),
        parameter_openapi_schema=parameter_schema(flow).model_dump(exclude_unset=True),
        # Values are checked by the flow itself: it knows aliases and spellings, and reports all mistakes at once.
        enforce_parameter_schema=False,
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}],
        # Without a pipe to the worker a run outlives it; what the run prints stands in Prefect's own log.
        job_variables={"working_dir": str(folder), "stream_output": False},
    )
    return full_name


def _schedules(client: SyncPrefectClient, deployment: Deployment, full_name: str) -> list[DeploymentScheduleCreate]:
    if deployment.cron is None:
        return []
    try:
        present = client.read_deployment_by_name(full_name).schedules
    except ObjectNotFound:
        cron = CronSchedule(cron=deployment.cron, timezone="UTC")
        return [DeploymentScheduleCreate(schedule=cron, active=False, slug=deployment.name)]
    return [
        DeploymentScheduleCreate(
            schedule=schedule.schedule,
            active=schedule.active,
            slug=schedule.slug,
            parameters=schedule.parameters,
            max_scheduled_runs=schedule.max_scheduled_runs,
        )
        for schedule in present
    ]
