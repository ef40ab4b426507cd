"""Filling the caches ahead of a run, on the machine that has the time."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled

from flows.form import ConfigFile, EnvName, TrainingValues
from flows.naming import name_run
from tasks.cache import cache_latents, cache_text
from tasks.cancellation import RunCancelledError
from tasks.preflight import check_run
from tasks.run import open_run


@flow(name="cache", flow_run_name=name_run)
def cache(
    env: EnvName = None,
    config_file: ConfigFile = None,
    config: TrainingValues = {},  # noqa: B006
) -> dict[str, Any] | State[None]:
    """Encodes captions and pictures that are not cached yet, and trains nothing."""
    checked = check_run(config, env, config_file, will_publish=False)
    try:
        with open_run(checked) as run:
            return {"text": asdict(cache_text(run.engine)), "latents": asdict(cache_latents(run.engine))}
    except RunCancelledError as stop:
        return Cancelled(message=str(stop), name=stop.state)
