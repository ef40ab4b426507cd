"""Folders for data sets, and uploads into them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from flowtuner.api.deps import Requires, SettingsDep
from flowtuner.api.errors import ApiError, refusals
from flowtuner.api.multipart import Body, read_multipart
from flowtuner.api.uploads import Staging, check_file_name, check_folder_name, resolve_folder, staging, unpack

UPLOAD = [Depends(Requires("dataset.upload"))]
FILE_FIELDS = ("files", "files[]")
ARCHIVE = "upload.zip"
STATUSES = (400, 401, 403, 404, 409, 413, 415)
BINARY = {"type": "string", "format": "binary"}
TARGET = {"type": "string", "description": "A folder below the data sets' root."}
OVERWRITE = {"type": "boolean", "default": False, "description": "Replaces files that are there already."}

router = APIRouter(tags=["datasets"])


class FolderReply(BaseModel):
    """A folder that was made."""

    success: bool = True
    path: str
    name: str
    error: str | None = None


class UploadReply(BaseModel):
    """What an upload came to."""

    success: bool = True
    files_uploaded: int
    files_skipped: int
    errors: list[str]
    target_path: str


def _form(**properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "required": ["target_path"], "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@router.get(
    "/api/datasets/folders", dependencies=[Depends(Requires("dataset.view"))], responses=refusals(400, 401, 403, 404)
)
def list_folder(settings: SettingsDep, path: str = "") -> dict[str, Any]:
    """What is in a folder of data sets."""
    folder = resolve_folder(settings.datasets_dir, path)
    with os.scandir(folder) as found:
        entries = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    return {
        "path": str(folder),
        "folders": [entry.name for entry in entries if entry.is_dir()],
        "files": [entry.name for entry in entries[:10_000] if entry.is_file()],
    }


@router.post("/api/datasets/folders", dependencies=UPLOAD, responses=refusals(400, 401, 403, 404))
def create_folder(
    parent_path: Annotated[str, Form()], folder_name: Annotated[str, Form()], settings: SettingsDep
) -> FolderReply:
    """Makes a folder for a data set."""
    name = check_folder_name(folder_name)
    folder = resolve_folder(settings.datasets_dir, parent_path) / name
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise ApiError(400, "folder_present", f"Folder '{name}' already exists") from error
    return FolderReply(path=str(folder), name=name)


@router.post(
    "/api/datasets/upload",
    dependencies=UPLOAD,
    responses=refusals(*STATUSES),
    openapi_extra=_form(target_path=TARGET, files={"type": "array", "items": BINARY}, overwrite=OVERWRITE),
)
async def upload_files(request: Request, settings: SettingsDep) -> UploadReply:
    """Takes pictures, captions and tables into a folder: all of them, or none."""
    limits = settings.upload_limits
    with staging(settings.datasets_dir) as stage:
        _refuse_full_disk(request, settings.datasets_dir, limits.margin_bytes)
        body = await read_multipart(
            request, lambda field, name: _take(stage, field, name), limits.file_bytes, limits.request_bytes
        )
        if not stage.names:
            raise ApiError(400, "no_files", "No file came: send them as files=@picture.png")
        return await run_in_threadpool(_accept, stage, body, settings.datasets_dir, [])


@router.post(
    "/api/datasets/upload/zip",
    dependencies=UPLOAD,
    responses=refusals(*STATUSES),
    openapi_extra=_form(target_path=TARGET, file=BINARY, overwrite=OVERWRITE),
)
async def upload_zip(request: Request, settings: SettingsDep) -> UploadReply:
    """Takes a ZIP and unpacks it into a folder: all that may be in a data set, or nothing."""
    limits = settings.upload_limits
    with staging(settings.datasets_dir) as stage, staging(settings.datasets_dir) as packed:
        _refuse_full_disk(request, settings.datasets_dir, limits.margin_bytes)
        body = await read_multipart(
            request,
            lambda field, name: _take_archive(packed, field, name),
            limits.request_bytes,
            limits.request_bytes,
        )
        if not packed.names:
            raise ApiError(400, "no_files", "No ZIP came: send it as file=@dataset.zip")
        left_out = await run_in_threadpool(unpack, packed.folder / ARCHIVE, stage, limits)
        if not stage.names:
            raise ApiError(400, "nothing_usable", "The ZIP holds nothing for a data set", errors=left_out[:100])
        return await run_in_threadpool(_accept, stage, body, settings.datasets_dir, left_out)


def _take(stage: Staging, field: str, name: str) -> Path:
    if field not in FILE_FIELDS:
        raise ApiError(400, "unknown_field", f"Files come in the field `files`, not `{field[:50]}`")
    return stage.place(check_file_name(name))


def _take_archive(stage: Staging, field: str, name: str) -> Path:
    if field != "file" or stage.names:
        raise ApiError(400, "unknown_field", "One ZIP comes in the field `file`")
    if not name.lower().endswith(".zip"):
        raise ApiError(400, "not_a_zip", "File must be a ZIP archive")
    return stage.place(ARCHIVE)


def _accept(stage: Staging, body: Body, root: Path, left_out: list[str]) -> UploadReply:
    if "target_path" not in body.fields:
        raise ApiError(400, "no_target", "The field target_path is missing: a folder below the data sets' root")
    target = resolve_folder(root, body.fields["target_path"])
    overwrites = body.fields.get("overwrite", "").strip().lower() in ("true", "1", "yes", "on")
    stage.move_in(target, overwrites=overwrites)
    return UploadReply(
        files_uploaded=len(stage.names), files_skipped=len(left_out), errors=left_out[:1000], target_path=str(target)
    )


def _refuse_full_disk(request: Request, root: Path, margin: int) -> None:
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isdigit() else 0
    free = shutil.disk_usage(root).free
    if free < announced + margin:
        raise ApiError(413, "disk_full", f"The disk of the data sets has {free >> 20} MiB left: not enough for this")
