"""Rendering the validation prompts."""

from __future__ import annotations

from prefect.logging import get_run_logger

from flowtuner.engine.launch import Engine
from flowtuner.engine.run import ValidationReport
from tasks.retries import engine_task


@engine_task("validate step {step}")
def validate(engine: Engine, step: int) -> ValidationReport:
    """Renders the prompts with the weights of a step; what goes wrong is a warning, never the end of the run."""
    engine.train(step)  # nothing to do, unless the engine died and begins again before this step
    report = engine.validate()
    if report.error:
        get_run_logger().warning("validation at step %d failed, training goes on: %s", report.step, report.error)
    return report
