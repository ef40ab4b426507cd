"""Training: checked, started, watched, steered and stopped."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from flowtuner.api import fragments
from flowtuner.api.auth.caller import Caller
from flowtuner.api.deps import CallerDep, DatabaseDep, MemoryDep, Requires, SettingsDep
from flowtuner.api.errors import ApiError, describe_faults, page_or_json, refusals
from flowtuner.api.forms import FORM, FormDep, wants_json
from flowtuner.api.jobs import (
    JobField,
    JobId,
    end_job,
    find_active,
    find_current,
    find_job,
    find_newest,
    refuse_foreign,
)
from flowtuner.api.schemas.training import Checkpoints, OrderReply, StatusReply, describe_status
from flowtuner.api.settings import ServerSettings
from flowtuner.engine.checkpoints import list_checkpoints
from flowtuner.errors import ConfigError
from flowtuner.jobs import starting, store
from flowtuner.jobs.environments import EnvironmentStore
from flowtuner.jobs.inspection import Inspection
from flowtuner.jobs.loop import JobsLoop, ask_to_cancel
from flowtuner.jobs.orders import send_order
from flowtuner.records.database import Database
from flowtuner.records.tables import Job

router = APIRouter(tags=["training"])
Checker = Annotated[Caller, Depends(Requires("config.view"))]
Submitter = Annotated[Caller, Depends(Requires("job.submit"))]
Steerer = Annotated[Caller, Depends(Requires("job.cancel.own"))]
Viewer = Annotated[Caller, Depends(Requires("job.view.own"))]
IdempotencyKey = Annotated[str | None, Header(max_length=255)]


@router.post(
    "/api/training/validate",
    responses=page_or_json(400, 401, 403, 404, 409),
    openapi_extra=FORM,
    response_model=None,
)
async def validate(
    request: Request, form: FormDep, caller: Checker, database: DatabaseDep, settings: SettingsDep
) -> Response:
    """Finds everything that keeps options from being trained; starts nothing."""
    found = await run_in_threadpool(_inspect, form, caller, database, settings)
    if not wants_json(request):
        return fragments.show_inspection(found)
    body = {"valid": found.is_valid, "errors": found.errors, "warnings": found.warnings, "suggestions": []}
    return JSONResponse(body, 200 if found.is_valid else 422)


@router.post(
    "/api/training/start",
    responses=page_or_json(400, 401, 403, 404, 409, 503),
    openapi_extra=FORM,
    response_model=None,
)
async def start(
    request: Request,
    form: FormDep,
    caller: Submitter,
    database: DatabaseDep,
    settings: SettingsDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Queues a run; it begins as soon as nothing stands before it."""
    loop: JobsLoop = request.app.state.jobs
    try:
        job_id = await run_in_threadpool(_start, form, caller, database, settings, idempotency_key)
    except ConfigError as error:
        if wants_json(request):
            body: dict[str, Any] = {
                "status": "rejected",
                "job_id": None,
                "queue_position": None,
                "reason": "invalid_configuration",
            }
            body |= {"errors": describe_faults(error.faults), "detail": str(error), "code": "invalid_configuration"}
            return JSONResponse(body, 422)
        return fragments.show_refusal(f"{fault.option}: {fault.problem}" for fault in error.faults)
    loop.hurry()
    position, status = await run_in_threadpool(_place, database, job_id)
    headers = {"X-Job-Id": job_id}
    if wants_json(request):
        answer_body = {"status": status, "job_id": job_id, "queue_position": position, "reason": None}
        return JSONResponse(answer_body, headers=headers)
    answer = fragments.show_start(job_id, position)
    answer.headers.update(headers)
    return answer


@router.get(
    "/api/training/status", response_model=None, responses=refusals(401, 403, 404) | {200: {"model": StatusReply}}
)
async def read_status(caller: Viewer, database: DatabaseDep, memory: MemoryDep, job_id: JobId = None) -> Response:
    """Where the job stands: the named one, or the newest under way."""
    describe = partial(_describe_status, caller, database, job_id)
    body = await memory.ask(("status", caller.sight, job_id), describe)
    return Response(body, media_type="application/json")


@router.get("/api/training/config", responses=refusals(401, 403, 404))
def read_run_config(caller: Viewer, database: DatabaseDep, job_id: JobId = None) -> dict[str, Any]:
    """Every option of the job with its value; credentials are left out."""
    with database.reading() as session:
        job = find_current(session, caller, job_id)
        return {"job_id": job.id if job else None, **(job.resolved if job else {"config": {}})}


@router.post("/api/training/stop", responses=refusals(401, 403, 404, 503))
def stop(caller: Steerer, database: DatabaseDep, job_id: JobField = None) -> dict[str, Any]:
    """Has the job save a checkpoint, publish it and end."""
    with database.reading() as session:
        job = find_job(session, caller, job_id) if job_id else find_newest(session, caller, store.ACTIVE)
    if job is None or job.status in store.OVER:
        return {"message": "No active training job to stop", "job_id": None}
    refuse_foreign(caller, job)
    status = ask_to_cancel(database, job.id)
    return {"message": f"Training job {job.id} stop requested", "job_id": job.id, "status": status}


@router.post("/api/training/cancel", responses=page_or_json(400, 401, 403, 404, 409, 503), response_model=None)
def cancel(request: Request, caller: Steerer, database: DatabaseDep, job_id: JobField = None) -> Response:
    """Takes a job out of the queue, or has it save and end."""
    with database.reading() as session:
        waiting = (store.QUEUED, *store.ACTIVE)
        job = find_job(session, caller, job_id) if job_id else find_newest(session, caller, waiting)
    if job is None:
        raise ApiError(400, "no_active_job", "No active training job")
    status = end_job(database, caller, job)
    body = {"success": True, "status": status, "job_id": job.id, "message": f"Training job {job.id} cancel requested"}
    if wants_json(request):
        return JSONResponse(body)
    return fragments.show_message("warning", "Training Cancelled", str(body["message"]))


@router.get("/api/training/checkpoints", responses=refusals(401, 403, 404))
def read_checkpoints(caller: Viewer, database: DatabaseDep, job_id: JobId = None) -> Checkpoints:
    """The checkpoints in the job's output folder."""
    return _list_checkpoints(caller, database, job_id)


@router.post("/api/training/checkpoints", responses=refusals(401, 403, 404))
def post_checkpoints(caller: Viewer, database: DatabaseDep, job_id: JobField = None) -> Checkpoints:
    """The same, as the tutorial asks for it."""
    return _list_checkpoints(caller, database, job_id)


@router.post("/api/training/validation/run", responses=refusals(400, 401, 403, 404, 503))
def run_validation(caller: Steerer, database: DatabaseDep, job_id: JobField = None) -> OrderReply:
    """Has the run draw its validation pictures after the next gradient synchronisation."""
    return _order("validate", "Validation", caller, database, job_id)


@router.post("/api/training/checkpoint/run", responses=refusals(400, 401, 403, 404, 503))
def run_checkpoint(caller: Steerer, database: DatabaseDep, job_id: JobField = None) -> OrderReply:
    """Has the run save a checkpoint after the next gradient synchronisation."""
    return _order("checkpoint", "Checkpoint", caller, database, job_id)


OLD = "/api/training/configuration"
hidden: dict[str, Any] = {"methods": ["POST"], "include_in_schema": False, "response_model": None}
router.add_api_route(f"{OLD}/check", validate, **hidden)
router.add_api_route(f"{OLD}/run", start, **hidden)


def _describe_status(caller: Caller, database: Database, job_id: str | None) -> str:
    with database.reading() as session:
        return describe_status(find_current(session, caller, job_id)).model_dump_json()


def _inspect(form: dict[str, Any], caller: Caller, database: Database, settings: ServerSettings) -> Inspection:
    environments = EnvironmentStore(settings.config_dir)
    with database.reading() as session:
        active = starting.read_active(session)
    try:
        wish = starting.merge_form(form, environments, active)
    except ConfigError as error:
        return Inspection.of_faults(error.faults)
    # Whoever may not start anything may not learn what this machine's variables hold either, from a message say.
    return starting.inspect_wish(wish, settings.config_dir, fills_in=caller.may("job.submit"))


def _start(form: dict[str, Any], caller: Caller, database: Database, settings: ServerSettings, key: str | None) -> str:
    environments = EnvironmentStore(settings.config_dir)
    with database.reading() as session:
        active = starting.read_active(session)
    wish = starting.merge_form(form, environments, active)

    def submit(job_id: str) -> None:
        starting.submit(database, wish, settings.config_dir, job_id, user_id=caller.user_id, priority=caller.priority)
        starting.write_active(wish, environments)

    return starting.once(database, caller.username, key, form, submit)


def _place(database: Database, job_id: str) -> tuple[int | None, str]:
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        position = store.position_of(session, job)
        is_next = position == 1 and not store.list_jobs(session, store.ACTIVE)
        return (None, store.STARTING) if is_next else (position, job.status)


def _list_checkpoints(caller: CallerDep, database: Database, job_id: str | None) -> Checkpoints:
    with database.reading() as session:
        job = find_current(session, caller, job_id)
    if job is None or not job.output_dir:
        return Checkpoints(job_id=None, output_dir=None, checkpoints=[], count=0)
    folders = list_checkpoints(Path(job.output_dir))
    rows = [{"name": each.name, "path": str(each), "step": int(each.name.rpartition("-")[2])} for each in folders]
    return Checkpoints(job_id=job.id, output_dir=job.output_dir, checkpoints=rows, count=len(rows))


def _order(order: str, noun: str, caller: Caller, database: Database, job_id: str | None) -> OrderReply:
    with database.reading() as session:
        job = find_active(session, caller, job_id)
    refuse_foreign(caller, job)
    if not job.flow_run_id:
        raise ApiError(400, "no_active_job", "No active training job")
    order_id = send_order(job.flow_run_id, order)
    return OrderReply(job_id=job.id, order_id=order_id, message=f"{noun} of job {job.id} requested")
