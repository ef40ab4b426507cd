"""Filling the caches ahead of a run, on the machine that has the time, or on several."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled
from pydantic import WithJsonSchema

from flows.form import ConfigFile, EnvName, TrainingValues
from flows.naming import name_run
from tasks.cache import cache_latents, cache_text
from tasks.cancellation import RunCancelledError
from tasks.portions import fill_portion, look_at_data, stopping_portions
from tasks.preflight import check_run
from tasks.run import Run, open_run
from tasks.runners import RUNNERS, make_runner

ABOUT_SHARDS = "Into how many portions the work is cut; each is filled by an engine of its own."
ABOUT_RUNNER = "Where the portions are filled: threads of this machine, or the workers of a Dask or Ray cluster."
ABOUT_OPTIONS = 'What the task runner is made with, such as {"address": "tcp://scheduler:8786"}.'

Shards = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 1, "description": ABOUT_SHARDS})]
RunnerName = Annotated[str, WithJsonSchema({"enum": list(RUNNERS), "description": ABOUT_RUNNER})]
RunnerOptions = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "description": ABOUT_OPTIONS})]


@flow(name="cache", flow_run_name=name_run)
def cache(
    env: EnvName = None,
    config_file: ConfigFile = None,
    config: TrainingValues = {},  # noqa: B006
    shards: Shards = 1,
    task_runner: RunnerName = "threads",
    task_runner_options: RunnerOptions = {},  # noqa: B006
) -> dict[str, Any] | State[None]:
    """Encodes captions and pictures that are not cached yet, and trains nothing."""
    checked = check_run(config, env, config_file, will_publish=False)
    runner = make_runner(task_runner, task_runner_options, shards)
    try:
        with open_run(checked) as run:
            if shards > 1:
                look_at_data(run.engine)
                fill_portions(run, shards, runner)
            # After portions this finds all of it there; what one of them failed at is made up for.
            return {"text": asdict(cache_text(run.engine)), "latents": asdict(cache_latents(run.engine))}
    except RunCancelledError as stop:
        return Cancelled(message=str(stop), name=stop.state)


def fill_portions(run: Run, count: int, runner: Any) -> None:
    """Fills the caches in portions, as a flow of its own since a flow has one task runner."""
    spec = run.spec

    # What a portion is told stays out of the flow's parameters, which Prefect keeps for everybody to read. The function
    # itself travels to other machines, so nothing of this process may stand in it, such as the engine.
    @flow(name="cache portions", task_runner=runner)
    def portions() -> None:
        futures = [fill_portion.submit(spec, number, count) for number in range(1, count + 1)]
        for future in futures:
            future.result()

    with stopping_portions(spec):
        portions()
