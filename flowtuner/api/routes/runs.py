"""What runs on other machines tell of themselves."""

from __future__ import annotations

import base64
import binascii
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, Field

from flowtuner.api.deps import DatabaseDep, SettingsDep
from flowtuner.api.errors import ApiError, refusals
from flowtuner.api.jobs import NAME
from flowtuner.api.schemas.incoming import Incoming
from flowtuner.engine.events import Event
from flowtuner.jobs.intake import picture_folder, take
from flowtuner.jobs.tokens import RunTokens
from flowtuner.records.tables import Job
from flowtuner.telling.reports import translate

router = APIRouter(tags=["runs"])
PUBLIC = ("/api/runs/{job_id}/events",)
"""These ask for the token of a job instead of a person."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif")


class Picture(BaseModel):
    """One file of an event."""

    name: Annotated[str, Field(max_length=255)]
    data: str


class SentEvent(BaseModel):
    """One line of a run's own log."""

    seq: Annotated[int, Field(ge=1, lt=1 << 31)]
    time: Annotated[float, Field(ge=0, lt=1e11)]
    type: Annotated[str, Field(max_length=50)]
    data: dict[str, Any]
    pictures: list[Picture] = []


class Batch(Incoming):
    """Some events of one flow run, in order."""

    run: Annotated[str, Field(max_length=36)]
    events: Annotated[list[SentEvent], Field(max_length=1000)]


class Receipt(BaseModel):
    """What is known here now; what comes again is not added again."""

    last_source: int


@router.post("/api/runs/{job_id}/events", responses=refusals(401, 404, 409))
def take_events(
    job_id: str,
    batch: Batch,
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    authorization: Annotated[str, Header()] = "",
) -> Receipt:
    """Takes events of a job's run; the token is the one that its run was started with."""
    tokens: RunTokens = request.app.state.tokens
    if not NAME.fullmatch(job_id) or not tokens.knows(job_id, authorization.removeprefix("Bearer ").strip()):
        raise ApiError(401, "wrong_token", "The token is not that of this job", headers={"WWW-Authenticate": "Bearer"})
    with database.reading() as session:
        if session.get(Job, job_id) is None:
            raise ApiError(404, "job_not_found", f"Job '{job_id}' not found")
    folder = picture_folder(settings.home, job_id)
    try:
        reports = [translate(Event(each.seq, each.time, batch.run, each.type, each.data)) for each in batch.events]
        pictures = {each.seq: [_decode(picture) for picture in each.pictures] for each in batch.events}
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ApiError(422, "broken_event", "An event does not have the fields that its type has") from error
    names: dict[int, list[str]] = {}
    for seq, files in pictures.items():
        names[seq] = [f"{batch.run[:8]}-{seq}-{number}{suffix}" for number, (suffix, _) in enumerate(files)]
        folder.mkdir(parents=True, exist_ok=True)
        for name, (_, data) in zip(names[seq], files, strict=True):
            (folder / name).write_bytes(data)
    known = take(database, job_id, batch.run, reports, names)
    if known is None:
        raise ApiError(409, "another_run", "This job's present run is another one")
    request.app.state.board.tell(job_id)
    return Receipt(last_source=known)


def _decode(picture: Picture) -> tuple[str, bytes]:
    suffix = PurePosixPath(picture.name).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(suffix)
    return suffix, base64.b64decode(picture.data, validate=True)
