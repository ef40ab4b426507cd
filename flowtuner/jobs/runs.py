"""What Prefect's record of a run tells about where its results are."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from flowtuner.options import load


def find_output_dir(run_id: UUID) -> Path | None:
    """The output folder of a flow run, from the parameters it was started with; None if there is no such run."""
    with get_client(sync_client=True) as client:
        try:
            given = client.read_flow_run(run_id).parameters
        except ObjectNotFound:
            return None
    if given.get("path"):  # a run that published
        return Path(given["path"])
    config_file = given.get("config_file")
    loaded = load(
        env=given.get("env"),
        config_file=Path(config_file) if config_file else None,
        values=given.get("config") or {},
    )
    return Path(loaded.config.output_dir)
