"""Flow matching against diffusers' own arithmetic and against hand-made numbers."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from flowtuner.engine.diffusion import FlowSchedule

MANY = 20_000


def generator():
    return torch.Generator().manual_seed(3)


def test_noise_is_mixed_as_diffusers_does():
    theirs = FlowMatchEulerDiscreteScheduler()
    latents, noise = torch.randn(2, 3, 4, 6, 5, generator=generator())
    steps = theirs.timesteps[[0, 400, 999]]
    mixed = FlowSchedule().add_noise(latents, noise, steps)
    torch.testing.assert_close(mixed, theirs.scale_noise(latents, steps, noise))


def test_the_target_leads_from_the_noisy_latents_to_the_picture():
    latents, noise = torch.randn(2, 3, 4, 6, 5, generator=generator())
    steps = torch.tensor([100.0, 500.0, 900.0])
    schedule = FlowSchedule()
    way = schedule.target(latents, noise, steps) * (steps / 1000)[:, None, None, None]
    torch.testing.assert_close(schedule.add_noise(latents, noise, steps) - way, latents, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "median"),
    [
        ({}, 750),  # the default shift of 3 moves the middle to 3/4
        ({"flow_schedule_shift": 0}, 500),
        ({"flow_schedule_shift": 1}, 500),
        ({"flow_schedule_shift": None, "flow_use_uniform_schedule": True}, 500),
        ({"flow_schedule_shift": 0, "flow_use_beta_schedule": True}, 500),
        (
            {
                "flow_schedule_shift": 0,
                "flow_use_beta_schedule": True,
                "flow_beta_schedule_alpha": 1,
                "flow_beta_schedule_beta": 3,
            },
            206,
        ),
    ],
)
def test_timesteps_follow_the_options_and_come_from_the_generator(configure, options, median):
    schedule = FlowSchedule.from_config(configure(**options))
    drawn = schedule.sample_timesteps(MANY, generator())
    assert torch.equal(drawn, schedule.sample_timesteps(MANY, generator()))
    assert 0 <= drawn.min() < drawn.max() <= 1000
    assert drawn.median().item() == pytest.approx(median, abs=12)


def test_the_sigmoid_scale_widens_the_draw(configure):
    narrow, wide = (
        FlowSchedule.from_config(configure(flow_sigmoid_scale=scale)).sample_timesteps(MANY, generator()).std()
        for scale in (0.5, 2.0)
    )
    assert narrow < 0.7 * wide


def test_min_snr_changes_nothing():
    assert FlowSchedule().snr_weights(torch.tensor([1.0, 999.0]), 5.0).tolist() == [1.0, 1.0]
