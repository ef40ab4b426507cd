"""Optimizers by name, their settings, and clipping."""

import io

import pytest
import torch

from flowtuner.engine.limits import OPTIMIZERS, find_optimizer_faults
from flowtuner.engine.optim import averaged_weights, clip_gradients, create_optimizer, set_rate
from flowtuner.errors import ConfigError

CPU = torch.device("cpu")
OFFERED = [name for name in OPTIMIZERS if not list(find_optimizer_faults(name))]
# Those of torchao and bitsandbytes are tried by the slow lane, where they are installed: they compile for a minute.
QUICK = [name for name in OFFERED if not name.startswith(("ao-", "bnb-"))]
# Their packages warn about what a CPU lacks: pages, and hashes for the compiler's cache.
SLOW_MARKS = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SLOW = [pytest.param(name, marks=SLOW_MARKS) for name in OFFERED if name not in QUICK]


@pytest.fixture
def parameter():
    parameter = torch.nn.Parameter(torch.ones(4, 4))
    parameter.grad = torch.full((4, 4), 3.0)
    return parameter


def test_the_packages_of_the_test_environment_are_driven():
    assert {"optimi-lion", "prodigy", "adamw_schedulefree", "torch-muon"} <= set(QUICK)


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_every_offered_optimizer_learns_and_goes_on_to_the_bit(configure, name):
    """A small regression; one of two equal trainings is saved, loaded into a fresh optimizer and goes on."""
    config = configure(optimizer=name, learning_rate=1.0 if name == "prodigy" else 1e-2)
    straight, resumed = make_network(name), make_network(name)
    one, other = create(config, straight), create(config, resumed)
    losses = []
    for step in range(12):
        if step == 5:
            other = restored(other, create(config, resumed))
        for network, optimizer in ((straight, one), (resumed, other)):
            set_rate(optimizer, config.learning_rate / (1 + step))
            losses.append(take_step(network, optimizer))
    assert losses[0::2] == losses[1::2]
    assert losses[-1] < losses[0]
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def make_network(name):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4))
    return network.bfloat16() if name == "adamw_bf16" else network


def create(config, network):
    return create_optimizer(config, list(network.parameters()), CPU)


def restored(old, fresh):
    file = io.BytesIO()
    torch.save(old.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def take_step(network, optimizer):
    parameter = next(network.parameters())
    inputs = torch.randn(8, 16, generator=torch.Generator().manual_seed(1)).to(parameter.dtype)
    loss = (network(inputs) - inputs[:, :4]).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def test_an_average_is_shown_and_the_trained_weights_come_back_to_the_bit(configure):
    network = make_network("adamw_schedulefree")
    optimizer = create(configure(optimizer="adamw_schedulefree", learning_rate=0.05), network)
    for _ in range(5):
        take_step(network, optimizer)
    trained = [parameter.detach().clone() for parameter in network.parameters()]
    state = [entry["z"] for entry in optimizer.state.values()]
    with averaged_weights(optimizer):
        # The gradient is taken at y = beta x + (1 - beta) z; shown is x.
        for shown, y, z in zip(network.parameters(), trained, state, strict=True):
            assert not torch.equal(shown, y)
            torch.testing.assert_close(0.9 * shown + 0.1 * z, y)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), trained, strict=True))
    take_step(network, optimizer)


def test_muon_moves_matrices_and_adamw_the_rest(configure):
    matrix, bias = torch.nn.Parameter(torch.zeros(8, 8)), torch.nn.Parameter(torch.zeros(8))
    optimizer = create_optimizer(configure(optimizer="torch-muon"), [bias, matrix], CPU)
    matrix.grad, bias.grad = torch.randn(8, 8, generator=torch.Generator().manual_seed(0)), torch.ones(8)
    optimizer.step()
    # Every singular value of Muon's step is about the same; Adam's first step is the learning rate.
    values = torch.linalg.svdvals(matrix.detach())
    assert values.max() < 2 * values.min()
    torch.testing.assert_close(bias.detach(), torch.full((8,), -1e-3), rtol=1e-4, atol=0)


def test_two_betas_leave_the_third_one_alone(configure, parameter):
    config = configure(optimizer="optimi-adan", optimizer_beta1=0.8, optimizer_beta2=0.95)
    group = create_optimizer(config, [parameter], CPU).param_groups[0]
    assert (group["beta1"], group["beta2"], group["beta3"]) == (0.8, 0.95, 0.999)


def test_lion_starts_with_its_own_settings(configure, parameter):
    group = create_optimizer(configure(optimizer="optimi-lion"), [parameter], CPU).param_groups[0]
    assert (group["beta1"], group["beta2"], group["weight_decay"]) == (0.9, 0.99, 0.0)


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
        ({"optimizer": "soap"}, "SOAP"),
        ({"optimizer": "muon"}, "torch-muon"),
        ({"optimizer": "optimi-lion", "optimizer_config": "kahan_sum=false"}, "no such setting"),
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
