"""Saving: checkpoints on the way, the release at the end."""

from __future__ import annotations

from collections.abc import Sequence

from prefect.logging import get_run_logger

from flowtuner.engine.launch import Engine
from flowtuner.engine.run import Checkpoint
from tasks.retries import engine_task


@engine_task("save step {step}")
def save_checkpoint(engine: Engine, step: int, held: Sequence[str] = ()) -> Checkpoint:
    """Saves a complete checkpoint of a step; older ones that are held stay, however many are to be kept."""
    engine.train(step)  # nothing to do, unless the engine died and begins again before this step
    checkpoint = engine.save_checkpoint(held)
    get_run_logger().info("saved %s", checkpoint.path)
    return checkpoint


@engine_task("save the release of step {step}")
def save_release(engine: Engine, step: int) -> Checkpoint:
    """Writes the final weights in the layout that inference loads."""
    engine.train(step)
    release = engine.save_release()
    get_run_logger().info("final weights are in %s", release.path)
    return release
