"""Takes what a run reports into its job's log: once each, whether it was read from the disk or sent from elsewhere."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy.orm import Session

from flowtuner.jobs import store
from flowtuner.records.database import Database
from flowtuner.records.tables import Job
from flowtuner.telling.reports import Report

LOG = logging.getLogger(__name__)


def take(
    database: Database, job_id: str, run: str, reports: Sequence[Report], pictures: Mapping[int, list[str]]
) -> int | None:
    """Adds the reports of a job's present run, pictures by the number of theirs; answers with the newest number known.

    None if this run is not the job's present one.
    """
    with database.writing() as session:
        job = session.get_one(Job, job_id)
        if job.flow_run_id != run:
            return None
        for report in reports:
            _take(session, job, report, pictures.get(report.source, []))
        return job.last_source


def picture_folder(home: Path, job_id: str) -> Path:
    """Where the pictures of a job are kept."""
    return home / "pictures" / job_id


def keep_pictures(home: Path, job_id: str, report: Report) -> list[str]:
    """Copies a report's pictures: the output folder rotates, and what was seen once stays to be seen."""
    folder = picture_folder(home, job_id)
    folder.mkdir(parents=True, exist_ok=True)
    kept = []
    for number, path in enumerate(report.pictures):
        name = f"{report.source}-{number}{path.suffix}"
        try:
            shutil.copyfile(path, folder / name)
        except OSError as error:
            LOG.warning("a picture of job %s is lost: %s", job_id, error)
            continue
        kept.append(name)
    return kept


def _take(session: Session, job: Job, report: Report, pictures: list[str]) -> None:
    if report.source <= job.last_source:
        return
    body = report.body | ({"pictures": pictures} if pictures else {})
    store.add_event(
        session,
        job,
        report.type,
        report.message,
        severity=report.severity,
        source=report.source,
        time=report.time,
        **body,
    )
    job.last_source = report.source
    if report.type == "training.progress":
        job.progress = body["data"]
    if report.type == "lifecycle.stage":
        job.stages = job.stages | {body["stage"]["key"]: body["stage"]}
