"""What diffusion training is, apart from any model: noise, timesteps, targets and the loss."""

from flowtuner.engine.diffusion.loss import compute_loss
from flowtuner.engine.diffusion.schedule import Schedule

__all__ = ["Schedule", "compute_loss"]
