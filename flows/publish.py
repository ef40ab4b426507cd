"""Publishing a finished output folder, a checkpoint or another program's model, again or for the first time."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.form import DestinationEntries, Everything, FinishedPath, Repair, UploadScript
from flows.naming import name_run
from tasks.finished import check_finished
from tasks.outbox import open_outbox
from tasks.repair import clear_damage
from tasks.report import Outcome, confirm, report
from tasks.scripts import Scripts

UPLOADS_AT_ONCE = 64  # nearly all of them wait: one destination that is down must not keep the others waiting
REPORT_NAME = "logs/published.json"  # the report of the run that trained stays as it was


@flow(
    name="publish",
    flow_run_name=name_run,
    task_runner=ThreadPoolTaskRunner(max_workers=UPLOADS_AT_ONCE),  # type: ignore[arg-type]
)
def publish(
    path: FinishedPath,
    destinations: DestinationEntries = None,
    everything: Everything = False,
    repair: Repair = False,
    post_upload_script: UploadScript = None,
) -> dict[str, Any]:
    """Brings what a folder holds to its destinations and proves that it arrived; unchanged files stay."""
    finished = check_finished(path, destinations, everything=everything, script=post_upload_script)
    for destination in finished.destinations if repair else ():
        clear_damage(destination, finished.units)
    with open_outbox(finished.destinations, finished.output_dir, finished.keep) as outbox:
        scripts = Scripts(finished.config, finished.output_dir, outbox.events) if finished.config else None
        if scripts:
            outbox.ledger.when_verified(scripts.after_upload)
        deliveries = confirm(outbox.settle(finished.units))
        called = scripts.finish() if scripts else []
    outcome = Outcome("", finished.output_dir, finished.step, report_name=REPORT_NAME, scripts=tuple(called))
    return report(outcome, deliveries)
