"""Noise, targets and losses against diffusers' own arithmetic and against hand-made numbers."""

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_snr

from flowtuner.engine.diffusion import Schedule, compute_loss
from flowtuner.engine.diffusion.loss import measure
from flowtuner.errors import ModelError

STEPS = torch.tensor([0, 10, 500, 999])


def scheduler(prediction="epsilon", **values):
    return DDPMScheduler(beta_start=0.0001, beta_end=0.02, prediction_type=prediction, **values)


class Oracle:
    """A family whose model answers with a fixed tensor."""

    def __init__(self, answer):
        self.answer = answer

    def draw_inputs(self, count, generator):
        return {}

    def predict(self, model, noisy, timesteps, text):
        self.noisy, self.timesteps = noisy, timesteps
        return self.answer


@pytest.fixture
def latents():
    return torch.randn(4, 4, 6, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def noise():
    return torch.randn(4, 4, 6, 5, generator=torch.Generator().manual_seed(1))


def test_noise_is_mixed_as_diffusers_does(latents, noise):
    theirs = scheduler()
    mixed = Schedule.from_scheduler(theirs).add_noise(latents, noise, STEPS)
    torch.testing.assert_close(mixed, theirs.add_noise(latents, noise, STEPS), atol=1e-5, rtol=1e-5)


def test_targets(latents, noise):
    assert torch.equal(Schedule.from_scheduler(scheduler()).target(latents, noise, STEPS), noise)
    theirs = scheduler("v_prediction")
    velocity = Schedule.from_scheduler(theirs).target(latents, noise, STEPS)
    torch.testing.assert_close(velocity, theirs.get_velocity(latents, noise, STEPS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("prediction", "extra"), [("epsilon", 0), ("v_prediction", 1)])
def test_snr_weights(prediction, extra):
    theirs = scheduler(prediction)
    snr = compute_snr(theirs, STEPS)
    weights = Schedule.from_scheduler(theirs).snr_weights(STEPS, gamma=5.0)
    torch.testing.assert_close(weights, snr.clamp(max=5.0) / (snr + extra), atol=1e-6, rtol=1e-3)


def test_a_schedule_that_ends_without_signal_has_finite_weights():
    schedule = Schedule.from_scheduler(scheduler(rescale_betas_zero_snr=True))
    assert schedule.snr_weights(torch.tensor([999]), 5.0).tolist() == [1.0]


def test_timesteps_are_uniform_and_come_from_the_generator():
    schedule = Schedule.from_scheduler(scheduler())
    drawn = schedule.sample_timesteps(20_000, torch.Generator().manual_seed(3))
    assert torch.equal(drawn, schedule.sample_timesteps(20_000, torch.Generator().manual_seed(3)))
    assert (drawn.min(), drawn.max()) == (0, 999)
    assert drawn.float().mean() == pytest.approx(499.5, abs=8)


def test_a_flow_matching_scheduler_is_refused():
    with pytest.raises(ModelError, match="FlowMatchEuler"):
        Schedule.from_scheduler(FlowMatchEulerDiscreteScheduler())


@pytest.mark.parametrize(
    ("loss_type", "small", "large"), [("l2", 1e-4, 100.0), ("huber", 1e-4, 1.98), ("smooth_l1", 1e-3, 19.8)]
)
def test_robust_losses_are_square_for_small_errors_and_linear_for_large(configure, loss_type, small, large):
    config = configure(loss_type=loss_type, huber_c=0.1)
    errors = measure(config, torch.tensor([0.01, 10.0]), torch.zeros(2))
    assert errors[0].item() == pytest.approx(small, rel=0.01)
    assert errors[1].item() == pytest.approx(large, rel=0.01)


def test_the_loss_is_that_of_the_drawn_noise(configure, latents):
    generator = torch.Generator().manual_seed(5)
    drawn = torch.randn(latents.shape, generator=torch.Generator().manual_seed(5))
    oracle, schedule = Oracle(drawn), Schedule.from_scheduler(scheduler())
    assert compute_loss(oracle, None, schedule, latents, {}, generator, configure()).item() == 0
    torch.testing.assert_close(oracle.noisy, schedule.add_noise(latents, drawn, oracle.timesteps))
    shifted = Oracle(drawn + 0.5)
    loss = compute_loss(shifted, None, schedule, latents, {}, torch.Generator().manual_seed(5), configure())
    assert loss.item() == pytest.approx(0.25)


def test_snr_gamma_weighs_each_sample(configure, latents):
    drawn = torch.randn(latents.shape, generator=torch.Generator().manual_seed(5))
    oracle, schedule = Oracle(drawn + 1.0), Schedule.from_scheduler(scheduler())
    config = configure(snr_gamma=5.0)
    loss = compute_loss(oracle, None, schedule, latents, {}, torch.Generator().manual_seed(5), config)
    assert loss.item() == pytest.approx(schedule.snr_weights(oracle.timesteps, 5.0).mean().item(), rel=1e-5)


def test_the_loss_is_float32_whatever_the_model_answers(configure, latents):
    oracle = Oracle(torch.zeros(4, 4, 6, 5, dtype=torch.bfloat16))
    schedule, generator = Schedule.from_scheduler(scheduler()), torch.Generator().manual_seed(5)
    loss = compute_loss(oracle, None, schedule, latents.bfloat16(), {}, generator, configure())
    assert loss.dtype is torch.float32
    assert oracle.noisy.dtype is torch.bfloat16
