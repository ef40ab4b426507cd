"""Where legs end and how many steps a run has."""

from types import SimpleNamespace

import pytest

from flowtuner.engine.plan import Leg, Pace, count_steps, legs, paced_legs


def config(**values):
    defaults = {
        "max_train_steps": 0,
        "num_train_epochs": 0,
        "gradient_accumulation_steps": 1,
        "checkpoint_step_interval": 0,
        "checkpoint_epoch_interval": None,
        "validation_step_interval": 0,
        "validation_epoch_interval": None,
        "validation_disable": False,
    }
    return SimpleNamespace(**(defaults | values))


@pytest.mark.parametrize(
    ("values", "micro_batches", "steps"),
    [
        ({"max_train_steps": 7}, 100, 7),
        ({"num_train_epochs": 3}, 10, 30),
        ({"num_train_epochs": 3, "gradient_accumulation_steps": 4}, 10, 8),
        ({"num_train_epochs": 1, "gradient_accumulation_steps": 4}, 3, 1),
    ],
)
def test_steps_come_from_the_limit_or_the_epochs(values, micro_batches, steps):
    asked = config(**values)
    assert count_steps(asked, asked.num_train_epochs * micro_batches) == steps


def test_legs_end_at_every_checkpoint_and_validation_and_the_last_does_both():
    values = config(checkpoint_step_interval=4, validation_step_interval=6)
    assert list(legs(values, 0, 10, 5.0)) == [
        Leg(4, saves=True, validates=False),
        Leg(6, saves=False, validates=True),
        Leg(8, saves=True, validates=False),
        Leg(10, saves=True, validates=True),
    ]


def test_a_resumed_run_goes_on_with_the_legs_that_are_left():
    values = config(checkpoint_step_interval=4, validation_disable=True)
    assert [leg.until for leg in legs(values, 4, 10, 5.0)] == [8, 10]
    assert list(legs(values, 10, 10, 5.0)) == []


def test_epoch_intervals_fall_on_the_first_step_after_an_epoch():
    values = config(checkpoint_epoch_interval=1, validation_disable=True)
    assert [leg.until for leg in legs(values, 0, 8, 2.5)] == [3, 5, 8]


def test_a_run_that_paces_itself_saves_by_time_or_by_share():
    now, reached, saves, validated = [0.0], 0, [], []
    for leg in paced_legs(config(validation_step_interval=700), 0, 2000, 1.0, Pace(600, 0.05), lambda: now[0]):
        now[0] += 10 * (leg.until - reached)  # ten seconds a step: sixty of them in ten minutes
        reached = leg.until
        saves += [leg.until] * leg.saves
        validated += [leg.until] * leg.validates
    assert saves[:3] == [50, 110, 170]
    assert saves[-1] == 2000
    assert validated == [700, 1400, 2000]
    fast = [leg.until for leg in paced_legs(config(), 1000, 2000, 1.0, Pace(600, 0.05), lambda: 0.0) if leg.saves]
    assert fast[:3] == [1050, 1150, 1250]
