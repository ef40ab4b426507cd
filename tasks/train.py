"""Training, leg by leg."""

from __future__ import annotations

from prefect.logging import get_run_logger

from flowtuner.engine.launch import Engine
from flowtuner.engine.run import Position, TrainReport
from flowtuner.errors import EngineDied
from tasks.retries import engine_task


@engine_task("load the model")
def load_model(engine: Engine) -> Position:
    """Loads the model and goes to where training continues."""
    position = engine.prepare()
    get_run_logger().info("training from step %d to step %d", position.step, position.total_steps)
    return position


@engine_task("train to step {until}")
def train_leg(engine: Engine, until: int) -> TrainReport:
    """Trains to the end of a leg, or until somebody asks for something; after a crash, from the newest checkpoint."""
    report = engine.train(until, pausable=True)
    if report.step < until and not report.paused:
        raise EngineDied(f"the engine was stopped from outside at step {report.step} of {until}")
    get_run_logger().info("step %d, loss %.4f", report.step, report.loss)
    return report
