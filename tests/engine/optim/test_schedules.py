"""Learning rates are numbers, so they are tested with numbers."""

import itertools

import pytest

from flowtuner.engine.optim import learning_rate


@pytest.fixture
def rates(configure):
    def compute(scheduler, total=100, **options):
        config = configure(lr_scheduler=scheduler, learning_rate=1e-4, lr_end=1e-6, **options)
        return [learning_rate(config, step, total) for step in range(total + 1)]

    return compute


def test_cosine_is_a_linear_warmup_then_one_decay_to_the_end(rates):
    curve = rates("cosine", lr_warmup_steps=20)
    assert curve[0] == pytest.approx(1e-4 / 20)
    assert curve[9] == pytest.approx(0.5e-4)
    assert curve[19] == pytest.approx(1e-4)
    assert curve[59] == pytest.approx(1e-6 + 0.5 * 99e-6)
    assert curve[99] == curve[100] == pytest.approx(1e-6)
    assert all(one > other for one, other in itertools.pairwise(curve[19:100]))


def test_the_seeds_curve_does_not_return_to_its_peak(configure):
    config = configure(lr_scheduler="cosine", learning_rate=1e-4, lr_warmup_steps=500)
    peak = learning_rate(config, 499, 1800)
    assert peak == 1e-4
    assert learning_rate(config, 1000, 1800) < 0.7e-4
    assert learning_rate(config, 1799, 1800) == pytest.approx(4e-7)


def test_constant_ignores_everything(rates):
    assert set(rates("constant")) == {1e-4}


def test_constant_with_warmup(rates):
    curve = rates("constant_with_warmup", lr_warmup_steps=4)
    assert curve[:5] == pytest.approx([0.25e-4, 0.5e-4, 0.75e-4, 1e-4, 1e-4])
    assert set(curve[3:]) == {1e-4}


def test_linear(rates):
    curve = rates("linear", lr_warmup_steps=50)
    assert curve[24] == pytest.approx(0.5e-4)
    assert curve[74] == pytest.approx(1e-6 + 0.5 * 99e-6)
    assert curve[99] == pytest.approx(1e-6)


def test_polynomial_of_power_two(rates):
    curve = rates("polynomial", lr_power=2.0)
    assert curve[49] == pytest.approx(1e-6 + 0.25 * 99e-6)
    assert curve[99] == pytest.approx(1e-6)


def test_cosine_with_restarts_returns_to_the_peak(rates):
    curve = rates("cosine_with_restarts", lr_num_cycles=2)
    assert curve[48] < 2e-6
    assert curve[49] == pytest.approx(1e-4)
    assert curve[74] == pytest.approx(1e-6 + 0.5 * 99e-6)
    assert curve[99] == pytest.approx(1e-6)


def test_sine_rises_and_falls(rates):
    curve = rates("sine")
    assert curve[0] < 2e-6
    assert curve[49] == pytest.approx(1e-4)
    assert curve[99] == pytest.approx(1e-6)


def test_a_warmup_longer_than_the_run_only_warms_up(rates):
    curve = rates("cosine", total=10, lr_warmup_steps=100)
    assert curve[9] == pytest.approx(1e-4)
    assert curve[0] == pytest.approx(1e-5)


def test_an_end_above_the_peak_does_not_raise_the_rate(configure):
    config = configure(lr_scheduler="cosine", learning_rate=1e-8, lr_end=4e-7)
    assert {learning_rate(config, step, 10) for step in range(10)} == {1e-8}


def test_a_schedule_free_optimizer_is_warmed_up_and_then_left_alone(configure):
    config = configure(optimizer="adamw_schedulefree", lr_scheduler="cosine", lr_warmup_steps=2)
    assert [learning_rate(config, step, 4) for step in range(4)] == pytest.approx([5e-4, 1e-3, 1e-3, 1e-3])
