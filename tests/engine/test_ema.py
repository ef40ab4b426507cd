"""The average of the weights: its numbers, the swap, and resume."""

import pytest
import torch

from flowtuner.engine.ema import Ema
from flowtuner.errors import CheckpointError


def parameters(value=0.0, dtype=torch.float32):
    return [torch.nn.Parameter(torch.full((3,), value, dtype=dtype)), torch.nn.Parameter(torch.ones(2, 2, dtype=dtype))]


def move(weights, value):
    with torch.no_grad():
        weights[0].fill_(value)


@pytest.mark.parametrize("is_tensorwise", [False, True])
def test_the_average_follows_with_the_given_decay(configure, is_tensorwise):
    weights = parameters()
    ema = Ema(weights, configure(ema_decay=0.5, ema_foreach_disable=is_tensorwise))
    move(weights, 1.0)
    ema.update(100)
    ema.update(101)
    with ema.swapped():
        assert weights[0].tolist() == [0.75] * 3
    assert weights[0].tolist() == [1.0] * 3


def test_early_steps_count_more(configure):
    weights = parameters()
    ema = Ema(weights, configure(ema_decay=0.999))
    move(weights, 1.0)
    ema.update(1)
    with ema.swapped():
        assert weights[0].tolist() == pytest.approx([1 - 2 / 11] * 3)


def test_the_interval_skips_steps(configure):
    weights = parameters()
    ema = Ema(weights, configure(ema_decay=0.5, ema_update_interval=10))
    move(weights, 1.0)
    for step in range(101, 110):
        ema.update(step)
    with ema.swapped():
        assert weights[0].tolist() == [0.0] * 3
    ema.update(110)
    with ema.swapped():
        assert weights[0].tolist() == [0.5] * 3


def test_bfloat16_weights_have_a_float32_average(configure):
    weights = parameters(dtype=torch.bfloat16)
    ema = Ema(weights, configure(ema_decay=0.999))
    move(weights, 1.0)
    for step in range(100_000, 100_100):
        ema.update(step)
    assert ema.state_dict()["average"][0][0].item() == pytest.approx(1 - 0.999**100, rel=1e-4)


def test_weights_come_back_to_the_bit_even_after_an_error(configure):
    weights = parameters(value=0.1)
    before = [parameter.detach().clone() for parameter in weights]
    ema = Ema(weights, configure())
    move(weights, 0.3)
    before[0].fill_(0.3)
    with pytest.raises(RuntimeError), ema.swapped():
        raise RuntimeError
    assert all(torch.equal(one, other) for one, other in zip(weights, before, strict=True))


def test_a_resumed_average_goes_on_to_the_bit(configure):
    weights = parameters()
    straight, broken = Ema(weights, configure()), Ema(weights, configure())
    for step in range(1, 7):
        move(weights, 0.1 * step)
        straight.update(step)
        if step == 4:
            state = broken.state_dict()
            broken = Ema(weights, configure())
            broken.load_state_dict(state)
        broken.update(step)
    pairs = zip(straight.state_dict()["average"], broken.state_dict()["average"], strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_an_average_of_another_model_is_refused(configure):
    with pytest.raises(CheckpointError, match="another model"):
        Ema(parameters(), configure()).load_state_dict({"average": [torch.zeros(5)]})
