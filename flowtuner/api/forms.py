"""The forms of the training pages: any number of options, as a form or as JSON."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.datastructures import UploadFile

from flowtuner.api.errors import ApiError
from flowtuner.api.schemas.incoming import refuse_unwritable

MOST_FIELDS = 2000
FORM_SCHEMA = {
    "type": "object",
    "description": "Options of a run under their names, with or without dashes in front.",
    "additionalProperties": True,
}
FORM = {
    "requestBody": {
        "required": False,
        "content": {
            "multipart/form-data": {"schema": FORM_SCHEMA},
            "application/x-www-form-urlencoded": {"schema": FORM_SCHEMA},
            "application/json": {"schema": FORM_SCHEMA},
        },
    }
}


async def read_form(request: Request) -> dict[str, Any]:
    """All fields; of one that comes several times the last that says something counts."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    values = await (_read_json(request) if kind == "application/json" else _read_fields(request, kind))
    try:
        return dict(refuse_unwritable(values))
    except ValueError as error:
        raise ApiError(400, "broken_text", f"The form {error}") from error


async def _read_fields(request: Request, kind: str) -> dict[str, Any]:
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        return {}
    form = await request.form(max_fields=MOST_FIELDS)
    values: dict[str, Any] = {}
    for key, value in form.multi_items():
        if isinstance(value, UploadFile):
            raise ApiError(400, "file_in_form", f"The field {key[:100]} is a file; send its text (curl: --form-string)")
        if value != "" or key not in values:
            values[key] = value
    return values


async def _read_json(request: Request) -> dict[str, Any]:
    try:
        value = json.loads(await request.body() or b"{}")
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "broken_json", f"The body is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ApiError(400, "broken_json", "The body is no JSON object of options")
    return value


FormDep = Annotated[dict[str, Any], Depends(read_form)]


def wants_json(request: Request) -> bool:
    """Whether the sender would rather read JSON than a piece of a page."""
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/html" not in accept
