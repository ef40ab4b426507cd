"""Optimizers by their names, gradient clipping and learning-rate schedules."""

from flowtuner.engine.optim.clipping import clip_gradients, clip_norm, clip_value
from flowtuner.engine.optim.factory import create_optimizer
from flowtuner.engine.optim.schedules import learning_rate

__all__ = ["clip_gradients", "clip_norm", "clip_value", "create_optimizer", "learning_rate"]
