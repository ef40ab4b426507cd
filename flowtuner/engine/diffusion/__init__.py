"""What diffusion training is, apart from any model: noise, timesteps, targets and the loss."""

from flowtuner.engine.diffusion.flow import FlowSchedule
from flowtuner.engine.diffusion.loss import compute_loss
from flowtuner.engine.diffusion.schedule import NoiseSchedule, Schedule

__all__ = ["FlowSchedule", "NoiseSchedule", "Schedule", "compute_loss"]
