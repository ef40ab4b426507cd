"""Environments and what belongs to them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Response
from pydantic import BeforeValidator

from flowtuner import durable
from flowtuner.api.auth.caller import Caller
from flowtuner.api.deps import DatabaseDep, Requires, SettingsDep
from flowtuner.api.errors import ApiError, refusals
from flowtuner.api.schemas.configs import (
    ConfigList,
    ConfigReply,
    ConfigUpdate,
    DataloaderWish,
    Kind,
    NewConfig,
    NewEnvironment,
    NewName,
)
from flowtuner.api.schemas.incoming import refuse_unwritable
from flowtuner.engine.families import supported
from flowtuner.jobs import starting
from flowtuner.jobs.environments import (
    DATALOADER,
    DEFAULT,
    EnvironmentStore,
    doubled,
    examples,
    starter_dataloader,
)
from flowtuner.jobs.inspection import inspect_values
from flowtuner.jobs.starting import ACTIVE_SETTING
from flowtuner.options.redaction import hide_secrets
from flowtuner.records.database import Database
from flowtuner.records.tables import Setting

VIEW = [Depends(Requires("config.view"))]
CREATE = [Depends(Requires("config.create"))]
EDIT = [Depends(Requires("config.edit.own"))]
DELETE = [Depends(Requires("config.delete.own"))]
Entries = Annotated[list[dict[str, Any]], Body(), BeforeValidator(refuse_unwritable)]
IfMatch = Annotated[str | None, Header()]

router = APIRouter(tags=["configurations"])


def get_store(settings: SettingsDep) -> EnvironmentStore:
    """The environments of this server."""
    return EnvironmentStore(settings.config_dir)


Store = Annotated[EnvironmentStore, Depends(get_store)]


@router.get("/api/configs", dependencies=VIEW, responses=refusals(401, 403), include_in_schema=False)
@router.get("/api/configs/", dependencies=VIEW, responses=refusals(401, 403, 409))
def list_configs(store: Store, database: DatabaseDep, config_type: Kind = "model") -> ConfigList:
    """The environments, or the dataloader, webhook or LyCORIS files."""
    found = (
        [_row(store, name) for name in _with_default(store)] if config_type == "model" else _files(store, config_type)
    )
    return ConfigList(configs=found, active=read_active(database), count=len(found), config_type=config_type)


@router.get("/api/configs/examples", dependencies=VIEW, responses=refusals(401, 403))
def list_examples() -> dict[str, Any]:
    """The examples that come with Flowtuner."""
    rows = [
        {
            "name": name,
            "defaults": hide_secrets(durable.read_json(folder / "config.json")),
            "description": _about(folder),
            "config_path": f"examples/{name}/config.json",
            "dataloader_path": f"examples/{name}/{DATALOADER}",
            "has_dataloader": (folder / DATALOADER).is_file(),
        }
        for name, folder in examples().items()
    ]
    return {"examples": rows, "count": len(rows)}


@router.get("/api/configs/active", dependencies=VIEW, responses=refusals(401, 403, 404, 409))
def read_active_config(store: Store, database: DatabaseDep) -> dict[str, Any]:
    """The active environment."""
    name = read_active(database)
    return {"active": name, "config": _shown(store.read(name).config) if name else {}}


@router.post("/api/configs/environments", dependencies=CREATE, responses=refusals(400, 401, 403, 404, 409))
def create_environment(wanted: NewEnvironment, store: Store) -> dict[str, Any]:
    """Makes an environment: its options and a dataloader to begin with."""
    if wanted.model_family not in supported():
        known = ", ".join(supported())
        raise ApiError(400, "unknown_family", f"model_family '{wanted.model_family}' is not known; known are: {known}")
    name = wanted.name.removesuffix(".json")
    config = _first_options(wanted, name, store)
    plan = _first_dataloader(wanted, name, store)
    made = store.create(name, config, _notes(wanted.description or "", []) | {"name": name})
    path = store.write_dataloader(name, plan, replaces=True) if plan is not None else None
    made = store.read(name)
    return {
        "message": f"Environment '{name}' created",
        "environment": made.metadata | {"name": name, "path": f"{name}/config.json"},
        "config": _shown(made.config),
        "dataloader": {"path": f"{name}/{DATALOADER}", "absolute_path": str(path), "plan": plan} if path else None,
    }


@router.post("/api/configs/", dependencies=CREATE, responses=refusals(400, 401, 403, 409))
@router.post("/api/configs/import", dependencies=CREATE, responses=refusals(400, 401, 403, 409))
def import_config(wanted: NewConfig, store: Store) -> dict[str, Any]:
    """Makes an environment from options, such as an export's."""
    name = wanted.name.removesuffix(".json")
    made = store.create(name, wanted.config, _notes(wanted.description or "", wanted.tags or []) | {"name": name})
    return {"message": f"Configuration '{name}' created", "metadata": made.metadata, "config": _shown(made.config)}


@router.get("/api/configs/{name}", dependencies=VIEW, responses=refusals(400, 401, 403, 404, 409))
def read_config(name: str, store: Store, response: Response) -> ConfigReply:
    """One environment's options, under both spellings; credentials are hidden."""
    found = store.read(name.removesuffix(".json"))
    response.headers["ETag"] = f'"{found.version}"'
    return ConfigReply(name=found.name, config=_shown(found.config), metadata=found.metadata)


@router.put("/api/configs/{name}", dependencies=EDIT, responses=refusals(400, 401, 403, 404, 409, 412))
def replace_config(
    name: str, wanted: ConfigUpdate, store: Store, response: Response, if_match: IfMatch = None
) -> dict[str, Any]:
    """Replaces an environment's options; with If-Match only if nobody changed them meanwhile."""
    notes: dict[str, Any] = {"modified_at": _now()}
    notes |= {"description": wanted.description} if wanted.description else {}
    notes |= {"tags": wanted.tags} if wanted.tags else {}
    made = store.replace(name.removesuffix(".json"), wanted.config, notes, _version(if_match))
    response.headers["ETag"] = f'"{made.version}"'
    return {
        "message": f"Configuration '{made.name}' updated",
        "metadata": made.metadata,
        "validation": {"warnings": [], "suggestions": []},
    }


@router.delete("/api/configs/{name}", dependencies=DELETE, responses=refusals(400, 401, 403, 404, 409, 412))
def delete_config(name: str, store: Store, database: DatabaseDep, if_match: IfMatch = None) -> dict[str, str]:
    """Removes an environment; not the active one."""
    if name == read_active(database):
        raise ApiError(400, "is_active", f"Configuration '{name}' is active: activate another one first")
    store.delete(name, _version(if_match))
    return {"message": f"Configuration '{name}' deleted"}


@router.post("/api/configs/{name}/activate", dependencies=EDIT, responses=refusals(400, 401, 403, 404, 409))
def activate(name: str, store: Store, database: DatabaseDep) -> dict[str, str]:
    """Makes an environment the one that forms start from."""
    found = store.read(name.removesuffix(".json"))
    with database.writing() as session:
        session.merge(Setting(name=ACTIVE_SETTING, value=found.name))
    return {"message": f"Configuration '{found.name}' is now active", "active": found.name}


@router.post("/api/configs/{name}/dataloader", dependencies=EDIT, responses=refusals(400, 401, 403, 404, 409))
def make_dataloader(name: str, wanted: DataloaderWish, store: Store) -> dict[str, Any]:
    """Writes a dataloader file with the defaults; one that is there stays unless `replace` is true."""
    if wanted.path not in (None, f"{name}/{DATALOADER}", f"config/{name}/{DATALOADER}"):
        raise ApiError(400, "path_outside", f"The dataloader of '{name}' is {name}/{DATALOADER}; leave `path` out")
    plan = starter_dataloader(name) if wanted.include_defaults else []
    path = store.write_dataloader(name, plan, replaces=wanted.replace)
    return {
        "message": f"Dataloader of '{name}' written",
        "environment": store.read(name).metadata,
        "dataloader": {"path": f"{name}/{DATALOADER}", "absolute_path": str(path), "plan": plan},
    }


@router.get("/api/configs/{name}/dataloader", dependencies=VIEW, responses=refusals(400, 401, 403, 404, 409))
def read_dataloader(name: str, store: Store) -> dict[str, Any]:
    """The dataloader file of an environment; credentials are hidden."""
    path = store.read(name).dataloader
    if not path.is_file():
        raise ApiError(404, "dataloader_not_found", f"'{name}' has no {DATALOADER}")
    return {"name": name, "path": f"{name}/{DATALOADER}", "content": hide_secrets(durable.read_json(path))}


@router.put("/api/configs/{name}/dataloader", dependencies=EDIT, responses=refusals(400, 401, 403, 404, 409))
def replace_dataloader(name: str, content: Entries, store: Store) -> dict[str, Any]:
    """Replaces the dataloader file of an environment."""
    store.write_dataloader(name, content, replaces=True)
    return {"message": f"Dataloader of '{name}' written", "path": f"{name}/{DATALOADER}"}


@router.get("/api/configs/{name}/export", dependencies=VIEW, responses=refusals(400, 401, 403, 404, 409))
def export_config(name: str, store: Store, include_metadata: bool = True) -> dict[str, Any]:
    """The options as a file to keep; credentials are left out."""
    found = store.read(name)
    config: dict[str, Any] = hide_secrets(found.config)
    return {"_metadata": found.metadata, "config": config} if include_metadata else config


@router.post("/api/configs/{name}/copy", dependencies=CREATE, responses=refusals(400, 401, 403, 404, 409))
def copy_config(name: str, wanted: NewName, store: Store) -> dict[str, Any]:
    """Makes a second environment with the same options."""
    made = store.copy(name, wanted.new_name)
    return {"message": f"Configuration '{name}' copied to '{made.name}'", "metadata": made.metadata}


@router.post("/api/configs/{name}/rename", dependencies=EDIT, responses=refusals(400, 401, 403, 404, 409))
def rename_config(name: str, wanted: NewName, store: Store, database: DatabaseDep) -> dict[str, Any]:
    """Gives an environment another name; if it was active, it stays so."""
    made = store.rename(name, wanted.new_name)
    if read_active(database) == name:
        with database.writing() as session:
            session.merge(Setting(name=ACTIVE_SETTING, value=made.name))
    return {"message": f"Configuration '{name}' renamed to '{made.name}'", "metadata": made.metadata}


@router.post("/api/configs/{name}/validate", responses=refusals(400, 401, 403, 404, 409))
def validate_config(
    name: str, store: Store, caller: Annotated[Caller, Depends(Requires("config.view"))]
) -> dict[str, Any]:
    """Everything that keeps an environment from being trained."""
    found = store.read(name)
    place, may_start = found.folder / "config.json", caller.may("job.submit")
    inspection = inspect_values(found.config, store.config_dir, place, fills_in=may_start)
    return {
        "name": name,
        "is_valid": inspection.is_valid,
        "errors": list(inspection.errors),
        "warnings": list(inspection.warnings),
        "suggestions": [],
    }


def read_active(database: Database) -> str | None:
    """The name of the active environment."""
    with database.reading() as session:
        return starting.read_active(session)


def _first_options(wanted: NewEnvironment, name: str, store: EnvironmentStore) -> dict[str, Any]:
    config = dict(store.read(DEFAULT).config)
    if wanted.example:
        folder = examples().get(wanted.example)
        if folder is None:
            raise ApiError(404, "example_not_found", f"Example '{wanted.example}' not found: {', '.join(examples())}")
        config |= durable.read_json(folder / "config.json")
    config |= {"model_family": wanted.model_family, "model_type": wanted.model_type, "output_dir": f"output/{name}"}
    if wanted.model_flavour:
        config["model_flavour"] = wanted.model_flavour
    if wanted.model_type == "lora":
        config["lora_type"] = wanted.lora_type or "standard"
    if wanted.dataloader_path:
        config["data_backend_config"] = wanted.dataloader_path
    return config


def _first_dataloader(wanted: NewEnvironment, name: str, store: EnvironmentStore) -> list[Any] | None:
    if wanted.dataloader_path:
        path = Path(wanted.dataloader_path)
        inside = path.relative_to("config") if path.parts[:1] == ("config",) else path
        place = (store.config_dir / inside).resolve()
        if not place.is_relative_to(store.config_dir.resolve()) or not place.is_file():
            raise ApiError(400, "dataloader_not_found", f"dataloader_path '{path}' is no file below the config folder")
        return None
    if wanted.example and (examples()[wanted.example] / DATALOADER).is_file():
        return list(durable.read_json(examples()[wanted.example] / DATALOADER))
    return starter_dataloader(name) if wanted.create_dataloader else None


def _row(store: EnvironmentStore, name: str) -> dict[str, Any]:
    found = store.read(name)
    row = found.metadata | {"name": name, "has_dataloader": found.dataloader.is_file()}
    if found.dataloader.is_file():
        row |= {"dataloader_path": f"{name}/{DATALOADER}"}
    return row | {key: found.config[key] for key in ("data_backend_config", "model_family") if key in found.config}


def _with_default(store: EnvironmentStore) -> list[str]:
    return sorted({DEFAULT, *store.names()})


def _files(store: EnvironmentStore, kind: str) -> list[dict[str, Any]]:
    patterns = {
        "dataloader": (f"*/{DATALOADER}", "multidatabackend*.json"),
        "webhook": ("webhooks/*.json", "webhooks.json"),
        "lycoris": ("lycoris/*.json", "*/lycoris_config.json", "lycoris_config.json"),
    }
    paths = sorted(path for pattern in patterns[kind] for path in store.config_dir.glob(pattern))
    names = [str(path.relative_to(store.config_dir)) for path in paths]
    return [{"name": name.removesuffix(".json"), "path": name} for name in names]


def _shown(config: Mapping[str, Any]) -> dict[str, Any]:
    return doubled(hide_secrets(dict(config)))


def _notes(description: str, tags: list[str]) -> dict[str, Any]:
    return {"description": description, "tags": tags, "created_at": _now(), "modified_at": _now()}


def _about(folder: Path) -> str:
    config = durable.read_json(folder / "config.json")
    return f"{config.get('model_family', '')} {config.get('model_type', '')}".strip()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _version(if_match: str | None) -> str | None:
    return if_match.removeprefix("W/").strip('" ') if if_match else None
