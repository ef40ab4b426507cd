"""The bfloat16 optimizer: what it rounds, what it learns and what it remembers."""

import io

import pytest
import torch

from flowtuner.engine.diffusion import compute_loss
from flowtuner.engine.families import open_family
from flowtuner.engine.optim import create_optimizer
from flowtuner.engine.optim.adamw_bf16 import CHUNK_ON_CPU, AdamWBf16
from flowtuner.errors import CheckpointError

CPU = torch.device("cpu")


def weights(*shapes, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter((torch.randn(shape, generator=generator) * scale).bfloat16()) for shape in shapes]


def give_gradients(parameters, step):
    generator = torch.Generator().manual_seed(1000 + step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator).bfloat16()


def test_rounding_hits_the_mean_that_ordinary_rounding_misses():
    """One update of 1/40 of a bfloat16 step on 400,000 equal weights: on average it arrives."""
    (parameter,) = weights((400_000,))
    parameter.data.fill_(1.0)
    parameter.grad = torch.ones_like(parameter)
    AdamWBf16([parameter], lr=1e-4, weight_decay=0.0).step()
    assert set(parameter.unique().tolist()) == {1.0, 1.0 - 2**-8}
    assert 1.0 - parameter.float().mean().item() == pytest.approx(1e-4, rel=0.05)


def test_large_steps_follow_torchs_adamw():
    mine = weights((64, 64), scale=0.05)  # so small that rounding by chance is small against the steps
    start = mine[0].detach().float()
    theirs = [torch.nn.Parameter(start.clone())]
    optimizer = AdamWBf16(mine, lr=1e-2, eps=1e-6, weight_decay=1e-2)
    reference = torch.optim.AdamW(theirs, lr=1e-2, eps=1e-6, weight_decay=1e-2)
    for step in range(20):
        give_gradients(mine, step)
        theirs[0].grad = mine[0].grad.float()
        optimizer.step()
        reference.step()
    assert (mine[0].float() - theirs[0]).abs().mean() < 0.03 * (theirs[0] - start).abs().mean()


def test_a_resumed_optimizer_goes_on_to_the_bit():
    shapes = [(300, 500), (7,), (400, 400)]
    straight, broken = weights(*shapes), weights(*shapes)
    assert sum(parameter.numel() for parameter in straight) > CHUNK_ON_CPU
    one, other = AdamWBf16(straight, lr=1e-3), AdamWBf16(broken, lr=1e-3)
    for step in range(6):
        if step == 3:
            file = io.BytesIO()
            torch.save(other.state_dict(), file)
            file.seek(0)
            other = AdamWBf16(broken, lr=1.0)
            other.load_state_dict(torch.load(file, weights_only=True))
        for optimizer, parameters in ((one, straight), (other, broken)):
            give_gradients(parameters, step)
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(straight, broken, strict=True))


def test_state_of_another_model_is_refused():
    optimizer = AdamWBf16(weights((3, 3)))
    with pytest.raises(CheckpointError, match="another model"):
        optimizer.load_state_dict(AdamWBf16(weights((4, 4))).state_dict())


def test_float32_weights_are_refused():
    with pytest.raises(ValueError, match="float32"):
        AdamWBf16([torch.nn.Parameter(torch.ones(2))])


def test_real_bf16_optimizers_learn_at_a_rate_where_plain_bfloat16_stands_still(configure, tmp_path):
    """At lr 1e-5 plain bfloat16 makes a small part of float32's progress; rounding by chance and Kahan nearly all."""
    path = open_family("pixart_sigma").tiny(tmp_path / "model", layers=1, sample_size=8)
    family = open_family("pixart_sigma")(path, configure())
    batch = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    rows = [{"prompt_embeds": torch.randn(4, 64, generator=torch.Generator().manual_seed(n))} for n in range(4)]
    text = family.collate_text(rows)
    schedule = family.noise_schedule()

    def progress(dtype, make):
        model = family.load_model(dtype, CPU)
        optimizer = make(model.parameters())
        tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in text.items()}
        losses = []
        for _ in range(30):
            generator = torch.Generator().manual_seed(7)
            loss = compute_loss(family, model, schedule, batch.to(dtype), tensors, generator, family.config)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return losses[0] - losses[-1]

    float32 = progress(torch.float32, lambda p: torch.optim.AdamW(p, lr=1e-5))
    plain = progress(torch.bfloat16, lambda p: torch.optim.AdamW(p, lr=1e-5))
    assert plain < 0.3 * float32
    for name in ("adamw_bf16", "optimi-adamw"):
        config = configure(optimizer=name, learning_rate=1e-5, optimizer_beta1=0.9, optimizer_beta2=0.999)
        real = progress(torch.bfloat16, lambda p, config=config: create_optimizer(config, list(p), CPU))
        assert 0.9 * float32 < real < 1.1 * float32
