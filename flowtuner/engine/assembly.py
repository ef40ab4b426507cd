"""Puts a trainer together from a configuration, and writes it to and reads it from checkpoints."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from flowtuner.engine import checkpoints
from flowtuner.engine.adapters import TrainedPart, attach
from flowtuner.engine.compilation import compile_model
from flowtuner.engine.ema import Ema
from flowtuner.engine.family import Family
from flowtuner.engine.feed import Feed
from flowtuner.engine.formats import is_quantised
from flowtuner.engine.lending import lend_weights, wants_lending
from flowtuner.engine.loop import Trainer
from flowtuner.engine.optim import averaged_weights, create_optimizer
from flowtuner.engine.optim.schedules import learning_rate
from flowtuner.engine.precision import Precision
from flowtuner.engine.processes import wants_sharding
from flowtuner.engine.quantize import quantise_base
from flowtuner.engine.ranks import Ranks
from flowtuner.engine.seed import capture_states, mix, restore_states, seed_everything
from flowtuner.engine.shares import gather, share_states, whole
from flowtuner.errors import CheckpointError, EngineFault
from flowtuner.options import TrainingConfig

if TYPE_CHECKING:  # imported where a model is cut up only
    from flowtuner.engine.sharding import Sharding

OPTIMIZER = "optimizer.bin"
SCHEDULER = "scheduler.bin"
RANDOM_STATES = "random_states_{rank}.pkl"
RANK = 3
EMA_STATE = "ema.bin"
SCALER = "scaler.pt"

Load = Callable[[torch.dtype, torch.device], torch.nn.Module]


def assemble(
    config: TrainingConfig,
    family: Family,
    precision: Precision,
    device: torch.device,
    seed: int,
    total_steps: int,
    make_feed: Callable[[int], Feed],
    ranks: Ranks = Ranks(),  # noqa: B008  frozen
    load: Load | None = None,
) -> Trainer:
    """Loads the model and builds everything a step needs; the same seed builds the same trainer.

    The family loads the model, or `load` instead.
    """
    seed_everything(seed)
    _leave_out_cudnn_attention()
    is_cut_up = wants_sharding(config)
    # Cutting a model up moves it, block by block, to where it computes.
    is_lent = wants_lending(config, device)
    place = torch.device("cpu") if is_cut_up or is_lent else device
    model = _load_base(config, load or family.load_model, precision, place)
    part = attach(model, config, family, precision)
    if is_lent:
        lend_weights(model, device)
    compile_model(model, config)
    sharding = _cut_up(model, part, ranks, device) if is_cut_up else None
    parameters = part.parameters()
    if not ranks.is_first:
        seed_everything(mix(seed, RANK, ranks.rank))  # from here on every process drops out other places
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
        scaler=torch.amp.GradScaler(device.type) if precision.autocast is torch.float16 else None,
        ranks=ranks,
        sharding=sharding,
    )


def _cut_up(model: torch.nn.Module, part: TrainedPart, ranks: Ranks, device: torch.device) -> Sharding:
    from flowtuner.engine.sharding import Sharding

    return Sharding(model, part, ranks.world, device)


def _leave_out_cudnn_attention() -> None:
    # Its backward pass wrote undefined numbers, or past its memory, for Flux on an H200 with torch 2.11; flash
    # attention, which takes its place, did not.
    torch.backends.cuda.enable_cudnn_sdp(False)


def _load_base(config: TrainingConfig, load: Load, precision: Precision, device: torch.device) -> torch.nn.Module:
    if is_quantised(config):
        return quantise_base(load, precision.base, device, config)
    return load(precision.base, device)


def write_parts(trainer: Trainer, folder: Path | None, random_states: Sequence[bytes] = ()) -> None:
    """Writes the weights in diffusers' layout and everything else a resumed run needs, of every process.

    Without a folder nothing is written: so do the processes that only lend the first one their shares.
    """
    with averaged_weights(trainer.optimizer), trainer.whole():
        if folder:
            trainer.part.save(folder)
    if trainer.ema:
        with trainer.ema.swapped(), trainer.whole():
            if folder:
                trainer.part.save_ema(folder)
    average = gather(trainer.ema.state_dict()) if trainer.ema else None
    moments = gather(trainer.optimizer.state_dict())
    if folder is None:
        return
    with _without_checksums():
        if average:
            torch.save(average, folder / EMA_STATE)
        if trainer.scaler:
            torch.save(trainer.scaler.state_dict(), folder / SCALER)
        torch.save(moments, folder / OPTIMIZER)
        torch.save({"last_step": trainer.step, "learning_rate": trainer.rate(trainer.step)}, folder / SCHEDULER)
    for rank, states in enumerate(random_states):
        (folder / RANDOM_STATES.format(rank=rank)).write_bytes(states)


@contextlib.contextmanager
def _without_checksums() -> Iterator[None]:
    # The checkpoint's manifest has the SHA-256 of every file; torch's own CRC-32 doubles the time of writing.
    usual = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(usual)


def pack_random_states() -> bytes:
    """The states of this process's generators, as they stand in a checkpoint."""
    buffer = io.BytesIO()
    torch.save(capture_states(), buffer)
    return buffer.getvalue()


def restore_parts(trainer: Trainer, folder: Path) -> None:
    """Puts a trainer where the checkpoint left off."""
    state = checkpoints.read_state(folder)
    trainer.part.load(folder)
    _restore_optimizer(trainer, folder)
    if trainer.ema:
        if not (folder / EMA_STATE).exists():
            raise CheckpointError(f"{folder.name} has no EMA weights, but use_ema is on: turn it off or start afresh.")
        trainer.ema.load_state_dict(_read(folder / EMA_STATE))
    if trainer.scaler:
        trainer.scaler.load_state_dict(_read(folder / SCALER))
    trainer.step = state.global_step
    own = folder / RANDOM_STATES.format(rank=trainer.ranks.rank)
    if own.exists():  # where fewer processes saved, the new ones go on as they were seeded
        restore_states(_read(own))


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns what the writers of weights raise on a full or broken disk into one kind of error."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        free = shutil.disk_usage(folder.parent).free >> 20
        raise CheckpointError(
            f"{folder} could not be written: {_reason(error)} ({free} MiB are free there). What was saved before is "
            "whole: free space, then start again with the same options to go on from it."
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip().split("\n")[0]
    # What torch says of a full disk is a line of its own source.
    return "the disk did not take all of it" if "inline_container" in text else text


def check_weights(trainer: Trainer) -> None:
    """Refuses weights that must not be saved: half an update, or numbers that are none."""
    if not trainer.is_sound:
        raise EngineFault(f"the update after step {trainer.step} was cut short; its weights are not saved")
    norms = torch.stack([whole(norm).float() for norm in torch._foreach_norm(list(trainer.part.state().values()))])
    if not bool(norms.isfinite().all()):
        raise EngineFault(
            f"the weights hold infinite or undefined numbers after step {trainer.step} and are not saved. The last "
            "checkpoint is whole. Lower learning_rate or max_grad_norm."
        )


def _restore_optimizer(trainer: Trainer, folder: Path) -> None:
    state = _read(folder / OPTIMIZER)
    try:
        if trainer.sharding:
            state = share_states(state, trainer.parameters)
        trainer.optimizer.load_state_dict(state)
    except (ValueError, KeyError, IndexError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder.name}: its optimizer state belongs to another model, optimizer or adapter: {error}"
        ) from error


def _rate(config: TrainingConfig, total_steps: int, step: int) -> float:
    return learning_rate(config, step, total_steps)


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path.parent.name}: {path.name} cannot be read: {error}") from error
