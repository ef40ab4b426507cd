"""Optimizers by their names, gradient clipping and learning-rate schedules."""

from flowtuner.engine.optim.averaging import averaged_weights
from flowtuner.engine.optim.clipping import clip_gradients, clip_norm, clip_value
from flowtuner.engine.optim.factory import create_optimizer, set_rate
from flowtuner.engine.optim.schedules import learning_rate

__all__ = [
    "averaged_weights",
    "clip_gradients",
    "clip_norm",
    "clip_value",
    "create_optimizer",
    "learning_rate",
    "set_rate",
]
