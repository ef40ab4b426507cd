"""The training loop: everything a step does, and nothing else."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from flowtuner.engine.adapters import TrainedPart
from flowtuner.engine.diffusion import NoiseSchedule, compute_loss
from flowtuner.engine.ema import Ema
from flowtuner.engine.family import Family
from flowtuner.engine.feed import Feed
from flowtuner.engine.meter import Meter
from flowtuner.engine.optim import averaged_weights, clip_gradients, set_rate
from flowtuner.engine.ranks import Ranks, Wish
from flowtuner.engine.seed import capture_states, mix, restore_states
from flowtuner.engine.shares import is_sharded
from flowtuner.options import TrainingConfig

if TYPE_CHECKING:  # imported where a model is cut up only
    from flowtuner.engine.sharding import Sharding

NOISE = 1
NEVER = threading.Event()
"""A wish that nobody has."""


@dataclass
class Trainer:
    """What a step works on, and the one counter from which all else follows."""

    config: TrainingConfig
    family: Family
    model: torch.nn.Module
    part: TrainedPart
    parameters: list[torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    rate: Callable[[int], float]
    schedule: NoiseSchedule
    feed: Feed
    generator: torch.Generator
    seed: int
    autocast: torch.dtype | None = None
    ema: Ema | None = None
    scaler: torch.amp.GradScaler | None = None
    """Keeps small gradients above what float16 can hold; a step whose gradients overflow is left out."""
    ranks: Ranks = field(default_factory=Ranks)
    sharding: Sharding | None = None
    step: int = 0
    is_sound: bool = True
    """Whether the weights are those of a finished step; only such weights may be saved."""

    @property
    def micro_batches(self) -> int:
        """How many micro batches the finished steps have seen; one that was cut short counts for nothing."""
        return self.step * self.config.gradient_accumulation_steps

    def whole(self) -> contextlib.AbstractContextManager[None]:
        """Has this process hold all weights for a while; where they are cut up, all processes have to enter it."""
        return self.sharding.whole() if self.sharding else contextlib.nullcontext()

    def shown_weights(self) -> contextlib.AbstractContextManager[None]:
        """Puts those weights into the model that are shown and released: EMA's, or the optimizer's average."""
        return self.ema.swapped() if self.ema else averaged_weights(self.optimizer)


def train(trainer: Trainer, until: int, stop: Wish, meter: Meter, pause: Wish = NEVER) -> None:
    """Makes optimizer updates up to step `until`, or until `stop` is set: a step cut short counts for nothing.

    A `pause` lets the step under way finish.
    """
    stop, pause = trainer.ranks.together(stop), trainer.ranks.together(pause)
    trainer.model.train()
    trainer.optimizer.zero_grad(set_to_none=True)  # of a step that was cut short
    while trainer.step < until and not stop.is_set() and not pause.is_set():
        loss = accumulate_gradients(trainer, stop)
        if loss is None:
            break
        trainer.is_sound = False
        if trainer.scaler:
            trainer.scaler.unscale_(trainer.optimizer)
        norm = clip_gradients(trainer.config, trainer.parameters)
        rate = trainer.rate(trainer.step)
        set_rate(trainer.optimizer, rate)
        _update(trainer)
        trainer.optimizer.zero_grad(set_to_none=True)
        trainer.step += 1
        if trainer.ema:
            trainer.ema.update(trainer.step)
        trainer.is_sound = True
        meter.record(trainer.step, loss, rate, norm)
    meter.flush()


def accumulate_gradients(trainer: Trainer, stop: Wish) -> torch.Tensor | None:
    """Runs the micro batches of one update forward and back; their mean loss, still on the device, unless stopped."""
    count = trainer.config.gradient_accumulation_steps
    total = torch.zeros((), device=trainer.generator.device)
    before = capture_states() if count > 1 else None
    for place in range(count):
        if stop.is_set():  # the micro batches of a large model may take longer than a run has to leave
            if before:
                restore_states(before)  # as if the step had not begun
            return None
        number = trainer.step * count + place
        batch = trainer.feed.batch(number)
        # The draw depends on the counter alone: a resumed run has no generator state to get wrong.
        trainer.generator.manual_seed(mix(trainer.seed, NOISE, number))
        with _autocast(trainer):
            loss = compute_loss(
                trainer.family,
                trainer.model,
                trainer.schedule,
                batch.latents,
                batch.text,
                trainer.generator,
                trainer.config,
                trainer.part.switched_off if batch.is_regularisation else None,
                batch.share,
            )
        if batch.share:
            loss = loss * batch.share.weight
        part = loss / count
        (trainer.scaler.scale(part) if trainer.scaler else part).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    # Where the model is cut up, the backward pass has averaged the gradients already.
    own = [one.grad for one in trainer.parameters if one.grad is not None and not is_sharded(one.grad)]
    trainer.ranks.average([total, *own])
    return total / count


def _update(trainer: Trainer) -> None:
    if trainer.scaler is None:
        trainer.optimizer.step()
        return
    trainer.scaler.step(trainer.optimizer)
    trainer.scaler.update()


def _autocast(trainer: Trainer) -> contextlib.AbstractContextManager[None]:
    if trainer.autocast is None:
        return contextlib.nullcontext()
    return torch.autocast(trainer.generator.device.type, dtype=trainer.autocast)
