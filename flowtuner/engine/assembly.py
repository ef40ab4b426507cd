"""Puts a trainer together from a configuration, and writes it to and reads it from checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from flowtuner.engine import checkpoints
from flowtuner.engine.adapters import attach
from flowtuner.engine.ema import Ema
from flowtuner.engine.family import Family
from flowtuner.engine.feed import Feed
from flowtuner.engine.loop import Trainer
from flowtuner.engine.optim import create_optimizer
from flowtuner.engine.optim.schedules import learning_rate
from flowtuner.engine.precision import Precision
from flowtuner.engine.seed import capture_states, restore_states, seed_everything
from flowtuner.errors import CheckpointError
from flowtuner.options import TrainingConfig

OPTIMIZER = "optimizer.bin"
SCHEDULER = "scheduler.bin"
RANDOM_STATES = "random_states_0.pkl"
EMA_STATE = "ema.bin"


def assemble(
    config: TrainingConfig,
    family: Family,
    precision: Precision,
    device: torch.device,
    seed: int,
    total_steps: int,
    make_feed: Callable[[int], Feed],
) -> Trainer:
    """Loads the model and builds everything a step needs; the same seed builds the same trainer."""
    seed_everything(seed)
    model = family.load_model(precision.base, device)
    part = attach(model, config, family, precision)
    parameters = part.parameters()
    return Trainer(
        config=config,
        family=family,
        model=model,
        part=part,
        parameters=parameters,
        optimizer=create_optimizer(config, parameters, device),
        rate=partial(_rate, config, total_steps),
        schedule=family.noise_schedule(),
        feed=make_feed(seed),
        generator=torch.Generator(device),
        seed=seed,
        autocast=precision.autocast,
        ema=Ema(parameters, config) if config.use_ema else None,
    )


def write_parts(trainer: Trainer, folder: Path) -> None:
    """Writes the weights in diffusers' layout and everything else a resumed run needs."""
    trainer.part.save(folder)
    if trainer.ema:
        with trainer.ema.swapped():
            trainer.part.save_ema(folder)
        torch.save(trainer.ema.state_dict(), folder / EMA_STATE)
    torch.save(trainer.optimizer.state_dict(), folder / OPTIMIZER)
    torch.save({"last_step": trainer.step, "learning_rate": trainer.rate(trainer.step)}, folder / SCHEDULER)
    torch.save(capture_states(), folder / RANDOM_STATES)


def restore_parts(trainer: Trainer, folder: Path) -> None:
    """Puts a trainer where the checkpoint left off."""
    state = checkpoints.read_state(folder)
    trainer.part.load(folder)
    trainer.optimizer.load_state_dict(_read(folder / OPTIMIZER))
    if trainer.ema:
        if not (folder / EMA_STATE).exists():
            raise CheckpointError(f"{folder.name} has no EMA weights, but use_ema is on: turn it off or start afresh.")
        trainer.ema.load_state_dict(_read(folder / EMA_STATE))
    trainer.step = state.global_step
    trainer.micro_batches = state.micro_batches
    restore_states(_read(folder / RANDOM_STATES))


def _rate(config: TrainingConfig, total_steps: int, step: int) -> float:
    return learning_rate(config, step, total_steps)


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path.parent.name}: {path.name} cannot be read: {error}") from error
