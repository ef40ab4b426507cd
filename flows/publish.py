"""Publishing a finished output folder or a single checkpoint, again or for the first time; unchanged files stay."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.form import DestinationEntries, FinishedPath
from flows.naming import name_run
from tasks.finished import check_finished
from tasks.outbox import open_outbox
from tasks.report import Outcome, confirm, report

UPLOADS_AT_ONCE = 4
REPORT_NAME = "logs/published.json"  # the report of the run that trained stays as it was


@flow(
    name="publish",
    flow_run_name=name_run,
    task_runner=ThreadPoolTaskRunner(max_workers=UPLOADS_AT_ONCE),  # type: ignore[arg-type]
)
def publish(path: FinishedPath, destinations: DestinationEntries = None) -> dict[str, Any]:
    """Brings what a folder holds to its destinations and proves that it arrived."""
    finished = check_finished(path, destinations)
    with open_outbox(finished.destinations, finished.output_dir, finished.keep) as outbox:
        deliveries = confirm(outbox.settle(finished.units))
    return report(Outcome("", finished.output_dir, finished.step, report_name=REPORT_NAME), deliveries)
