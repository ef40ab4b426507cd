"""Optimizers by name, their settings, and clipping."""

import pytest
import torch

from flowtuner.engine.optim import clip_gradients, create_optimizer
from flowtuner.errors import ConfigError

CPU = torch.device("cpu")
OFFERED = (
    *("torch-adamw", "torch-adam", "torch-sgd", "torch-adamax", "torch-nadam", "torch-radam", "torch-rmsprop"),
    *("torch-adagrad", "torch-adadelta", "torch-adafactor", "torch-asgd", "torch-rprop"),
)


@pytest.fixture
def parameter():
    parameter = torch.nn.Parameter(torch.ones(4, 4))
    parameter.grad = torch.full((4, 4), 3.0)
    return parameter


@pytest.mark.parametrize("name", OFFERED)
def test_every_offered_optimizer_moves_against_the_gradient(configure, parameter, name):
    optimizer = create_optimizer(configure(optimizer=name), [parameter], CPU)
    optimizer.step()
    assert (parameter < 1).all()


def test_settings_and_betas_reach_the_optimizer(configure, parameter):
    config = configure(optimizer_beta1=0.8, optimizer_beta2=0.95, optimizer_config="weight_decay=0.3,amsgrad=true")
    group = create_optimizer(config, [parameter], CPU).param_groups[0]
    assert group["betas"] == (0.8, 0.95)
    assert group["weight_decay"] == 0.3
    assert group["amsgrad"] is True
    assert group["fused"] is True


def test_fused_kernels_can_be_left_out(configure, parameter):
    config = configure(fuse_optimizer=False)
    assert not create_optimizer(config, [parameter], CPU).param_groups[0]["fused"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": "optimi-lion"}, "torch-optimi"),
        ({"optimizer": "bnb-adamw8bit"}, "bitsandbytes"),
        ({"optimizer": "prodigy"}, "prodigyopt"),
        ({"optimizer": "torch-muon"}, "matrices"),
        ({"optimizer_config": "wieght_decay=0.1"}, "weight_decay"),
        ({"optimizer_config": "weight_decay"}, "name=value"),
        ({"optimizer_config": "weight_decay=-1"}, "refuses"),
    ],
)
def test_what_cannot_be_built_is_a_configuration_error(configure, parameter, options, words):
    with pytest.raises(ConfigError, match=words):
        create_optimizer(configure(**options), [parameter], CPU)


def test_clipping_by_value_is_the_default(configure, parameter):
    norm = clip_gradients(configure(max_grad_norm=2.0), [parameter])
    assert norm == pytest.approx(12.0)
    assert (parameter.grad == 2.0).all()


def test_clipping_by_norm_keeps_the_direction(configure, parameter):
    norm = clip_gradients(configure(max_grad_norm=2.0, grad_clip_method="norm"), [parameter])
    assert norm == pytest.approx(12.0)
    assert torch.linalg.vector_norm(parameter.grad) == pytest.approx(2.0, rel=1e-4)


def test_no_bound_leaves_gradients_alone(configure, parameter):
    assert clip_gradients(configure(max_grad_norm=0), [parameter]) == pytest.approx(12.0)
    assert (parameter.grad == 3.0).all()
