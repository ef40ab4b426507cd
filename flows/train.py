"""Training as a flow: check, cache, then leg by leg train, save, validate and publish; at the end, proof."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled
from prefect.task_runners import ThreadPoolTaskRunner

from flows.crash import report_cancellation, report_crash
from flows.form import ConfigFile, EnvName, TrainingValues
from flows.naming import name_run
from tasks.cache import cache_latents, cache_text
from tasks.cancellation import RunCancelledError
from tasks.checkpoint import save_checkpoint, save_release
from tasks.preflight import check_run
from tasks.report import report
from tasks.run import Run, open_run
from tasks.train import load_model, train_leg

UPLOADS_AT_ONCE = 64  # nearly all of them wait: one destination that is down must not keep the others waiting


@flow(
    name="train",
    flow_run_name=name_run,
    task_runner=ThreadPoolTaskRunner(max_workers=UPLOADS_AT_ONCE),  # type: ignore[arg-type]
    on_crashed=[report_crash],
    on_cancellation=[report_cancellation],
)
def train(
    env: EnvName = None,
    config_file: ConfigFile = None,
    config: TrainingValues = {},  # noqa: B006
) -> dict[str, Any] | State[None]:
    """Trains, validates and publishes a model; Completed means that every required destination holds it, verified."""
    checked = check_run(config, env, config_file)
    try:
        with open_run(checked) as run:
            return _train(run)
    except RunCancelledError as stop:
        return Cancelled(message=str(stop), name=stop.state)


def _train(run: Run) -> dict[str, Any]:
    run.go_on()
    cache_text(run.engine)
    cache_latents(run.engine)
    position = load_model(run.engine)
    step, loss, saved_steps = position.step, None, [position.step]

    for leg in run.legs(position):
        while (trained := train_leg(run.engine, leg.until)).step < leg.until:
            saved_steps.append(run.obey(trained.step, saved_steps[-1]))
        step, loss = leg.until, trained.loss
        if leg.saves:
            save_checkpoint(run.engine, step, run.unpublished())  # published as soon as it is whole
            saved_steps.append(step)
        if leg.validates:
            run.validate(step)
            run.publish_folder_later(step)

    release = save_release(run.engine, step)
    run.engine.close()  # the device is free while the last uploads are waited for
    run.publish_later(release)
    deliveries = run.settle()
    at_risk = max((later - earlier for earlier, later in pairwise(saved_steps)), default=0)
    return report(run.outcome(step, loss, release, at_risk), deliveries)
