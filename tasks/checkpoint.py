"""Saving: checkpoints on the way, the release at the end."""

from __future__ import annotations

from collections.abc import Sequence

from prefect.logging import get_run_logger

from flowtuner.engine.launch import Engine
from flowtuner.engine.run import Checkpoint
from tasks.retries import engine_task


@engine_task("save step {step}")
def save_checkpoint(engine: Engine, step: int, held: Sequence[str] = (), *, waits: bool = False) -> Checkpoint:
    """Writes a complete checkpoint of a step; older ones that are held stay, however many are to be kept.

    Training need not wait until it is hashed and flushed: the engine tells when it is whole.
    """
    engine.train(step)  # nothing to do, unless the engine died and begins again before this step
    checkpoint = engine.save_checkpoint(held, waits=waits)
    get_run_logger().info("saved %s", checkpoint.path)
    return checkpoint


@engine_task("save the release of step {step}")
def save_release(engine: Engine, step: int) -> Checkpoint:
    """Writes the final weights in the layout that inference loads."""
    engine.train(step)
    release = engine.save_release()
    get_run_logger().info("final weights are in %s", release.path)
    return release
