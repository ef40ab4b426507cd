"""A job from a form or an environment: merged, checked, its credentials put away, its options frozen in a file."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from flowtuner import durable
from flowtuner.errors import ConfigError, FlowtunerError, Terminal
from flowtuner.jobs import store
from flowtuner.jobs.environments import EnvironmentStore, canonical
from flowtuner.jobs.inspection import Inspection, inspect_file, inspect_values
from flowtuner.options.names import bare_name, find_spelling
from flowtuner.records.database import Database
from flowtuner.records.tables import Job, Setting, new_job_id, now

ACTIVE_SETTING = "active_environment"
DISABLED, ALONE = "__disabled_fields__", "__replace_active_config__"
FROZEN = ".jobs"
AGAIN_S = 0.1
ABANDONED = datetime.timedelta(minutes=2)


class KeyReused(Terminal):
    """An Idempotency-Key stands for another request."""


@dataclass(frozen=True)
class Wish:
    """The options of a run that somebody wants, and the environment they build on."""

    values: dict[str, Any]
    environment: str | None
    folder: Path


def read_active(session: Session) -> str | None:
    """The name of the active environment."""
    setting = session.get(Setting, ACTIVE_SETTING)
    return str(setting.value) if setting and setting.value else None


def merge_form(form: Mapping[str, Any], environments: EnvironmentStore, active: str | None) -> Wish:
    """A form over the active environment: an empty text takes an option back, disabled fields do not count."""
    stands_alone = str(form.get(ALONE, "")).lower() in ("true", "1", "on", "yes")
    disabled = {bare_name(name) for name in str(form.get(DISABLED, "")).split(",") if name.strip()}
    base = None if stands_alone or active is None else environments.read(active)
    values = dict(base.config) if base else {}
    given = {key: value for key, value in form.items() if not key.startswith("__") and bare_name(key) not in disabled}
    values |= canonical(_unempty(given), values)
    for key, value in given.items():
        spelling = find_spelling(key)
        if value in ("", None) and spelling:
            values.pop(spelling.option, None)
    return Wish(values, base.name if base else None, base.folder if base else environments.config_dir / FROZEN)


def merge_environment(name: str, environments: EnvironmentStore) -> Wish:
    """An environment as it stands."""
    found = environments.read(name)
    return Wish(dict(found.config), found.name, found.folder)


def inspect_wish(wish: Wish, config_dir: Path, *, fills_in: bool = True) -> Inspection:
    """Everything that keeps a wish from being trained; starts nothing, leaves nothing."""
    return inspect_values(wish.values, config_dir, wish.folder / "config.json", fills_in=fills_in)


def submit(
    database: Database, wish: Wish, config_dir: Path, job_id: str, *, user_id: int | None, priority: int, **more: Any
) -> Job:
    """Queues a job for a wish; raises ConfigError with every fault if it cannot be trained."""
    frozen = _freeze(wish, config_dir, job_id)
    inspection = inspect_file(frozen, config_dir)
    if not inspection.is_valid or inspection.loaded is None:
        frozen.unlink(missing_ok=True)
        raise ConfigError(inspection.faults)
    loaded = inspection.loaded
    _put_credentials_away(wish, frozen, loaded.config)
    with database.writing() as session:
        job = Job(
            id=job_id,
            user_id=user_id,
            config_name=wish.environment,
            priority=priority,
            parameters={"config": {}, "env": None, "config_file": str(frozen)},
            resolved=loaded.redacted(),
            output_dir=str(loaded.config.output_dir),
            gpu_count=loaded.config.num_processes or 1,
            **more,
        )
        store.enqueue(session, job)
    return job


def repeat(database: Database, job: Job, *, user_id: int | None, priority: int) -> str:
    """Queues a job once more as a new one, which goes on from the newest checkpoint; answers with its id."""
    again = Job(
        id=new_job_id(),
        user_id=user_id,
        config_name=job.config_name,
        priority=priority,
        parameters=store.resuming(job.parameters),
        resolved=job.resolved,
        output_dir=job.output_dir,
        gpu_count=job.gpu_count,
        target=job.target,
    )
    with database.writing() as session:
        store.enqueue(session, again)
    return again.id


def once(database: Database, owner: str, key: str | None, request: Any, submit: Callable[[str], object]) -> str:
    """The job of a request, by id; one that comes again with the same Idempotency-Key is the same job.

    Raises KeyReused where the key came with another request.
    """
    job_id = new_job_id()
    if key is None:
        submit(job_id)
        return job_id
    while True:
        with database.writing() as session:
            try:
                known = store.recall(session, owner, key, request)
            except ValueError as error:
                raise KeyReused(f"the Idempotency-Key '{key[:64]}' came with another request before") from error
            if known is None:
                store.remember(session, owner, key, request, job_id)
                break
            if session.get(Job, known.job_id):
                return str(known.job_id)
            if now() - known.created_at > ABANDONED:
                session.delete(known)
        time.sleep(AGAIN_S)  # somebody else is about to start it
    try:
        submit(job_id)
    except BaseException:
        with database.writing() as session:
            store.forget(session, owner, key)
        raise
    return job_id


def queue_first(database: Database, environments: EnvironmentStore, name: str) -> None:
    """Queues an environment as a server starts; if it cannot be trained, a failed job says why."""
    job_id = new_job_id()
    try:
        wish = merge_environment(name, environments)
        submit(database, wish, environments.config_dir, job_id, user_id=None, priority=0)
    except FlowtunerError as error:
        with database.writing() as session:
            session.add(Job(id=job_id, config_name=name, status=store.ERROR, detail=str(error), completed_at=now()))


def write_active(wish: Wish, environments: EnvironmentStore) -> None:
    """Writes what a run was started with into the active file."""
    if wish.environment:
        environments.replace(wish.environment, wish.values, {})
        return
    path = environments.config_dir / "config.json"
    durable.write_json(path, wish.values)
    path.chmod(0o600)


def _freeze(wish: Wish, config_dir: Path, job_id: str) -> Path:
    # Beside the environment's own file, so that relative paths mean the same; a later change of that one is not ours.
    folder = wish.folder if wish.environment else config_dir / FROZEN
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".job-{job_id}.json"
    durable.write_json(path, wish.values)
    path.chmod(0o600)
    return path


def _put_credentials_away(wish: Wish, frozen: Path, config: Any) -> None:
    from flowtuner.publishing.door import conceal_run

    concealed = conceal_run({"config": wish.values}, config)["config"]
    if concealed != wish.values:
        durable.write_json(frozen, concealed)
        frozen.chmod(0o600)


def _unempty(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if value not in ("", None)}
