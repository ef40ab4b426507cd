"""Going on from a checkpoint that is not on this disk: brought here, proved, and then like one of the run's own."""

from __future__ import annotations

from pathlib import Path

from prefect.logging import get_run_logger

from flowtuner.engine.checkpoints import (
    check_identity,
    find_faults,
    find_newest,
    identity_of,
    make_way,
    read_state,
)
from flowtuner.engine.events import EventLog
from flowtuner.engine.run import Checkpoint, RunSpec
from flowtuner.errors import CheckpointError
from flowtuner.publishing.resume import ResumePoint
from tasks.retries import publish_task
from tasks.units import step_of

STAGE = "init_fetch_checkpoint"


@publish_task("fetch {point.manifest.name} from {point.destination.name}")
def fetch_checkpoint(point: ResumePoint, spec: RunSpec, events: EventLog) -> Checkpoint:
    """Brings a published checkpoint into the output folder; what an earlier attempt has brought stays."""
    newest = find_newest(spec.output_dir)
    if newest and not point.is_exact and step_of(newest) >= point.manifest.step:
        events.notify("info", f"{newest.name} is on this disk and not older than {point.uri}: going on from it.")
        return Checkpoint(newest, step_of(newest))
    target = spec.output_dir / point.manifest.name
    make_way(target, point.manifest.files)

    def show(done: int, total: int) -> None:
        events.stage(STAGE, "running", f"fetching {point.uri}, MiB", done >> 20, total >> 20)

    point.destination.fetch(point.manifest, target, show)
    _refuse_unfit(target, point, spec)
    told = f"going on from step {step_of(target)}, fetched from {point.uri} and verified"
    if point.is_adopted:
        told += f"; {spec.output_dir} held no checkpoint (resume_from_published=false starts afresh instead)"
    events.stage(STAGE, "completed", told)
    events.notify("info", told)
    get_run_logger().info(told)
    return Checkpoint(target, step_of(target))


def _refuse_unfit(folder: Path, point: ResumePoint, spec: RunSpec) -> None:
    # The unit is as it was published; whether that is all of the checkpoint, the checkpoint itself knows.
    if faults := find_faults(folder):
        raise CheckpointError(
            f"{point.uri} cannot be gone on from: {'; '.join(faults[:5])}. Was it published with include or exclude? "
            "Use another checkpoint."
        )
    check_identity(read_state(folder), identity_of(spec.loaded.config), folder)
