"""A base whose weights stay in main memory: nothing that is computed ever reads a weight that was taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from flowtuner.engine import preflight
from flowtuner.engine.adapters import attach
from flowtuner.engine.diffusion import compute_loss
from flowtuner.engine.estimate import estimate_memory
from flowtuner.engine.families import open_family
from flowtuner.engine.lending import LentWeights, lend_weights, wants_lending
from flowtuner.engine.limits import find_limits
from flowtuner.engine.precision import resolve_precision
from flowtuner.options import TrainingConfig, load

CPU = torch.device("cpu")
FAMILIES = ["pixart_sigma", "sd1x", "flux", pytest.param("z_image", marks=pytest.mark.slow)]


def spoil(hook: LentWeights, layer: torch.nn.Linear) -> None:
    """What is taken back is no number: whatever reads it shows."""
    layer.weight.data = torch.full_like(hook._home, torch.nan)


def gradients(family: Any, config: TrainingConfig, *, lends: bool) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = family.load_model(torch.float32, CPU)
    part = attach(model, config, family, resolve_precision(config, CPU))
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    if lends:
        lend_weights(model, CPU)
    model.train()
    row = {name: torch.randn(shape) for name, shape in family.text_shapes(model, 12).items()}
    latents = torch.randn(2, 4 if family.name in ("pixart_sigma", "sd1x") else 16, 8, 8)
    text = family.collate_text([row, row])
    generator = torch.Generator().manual_seed(1)
    compute_loss(family, model, family.noise_schedule(), latents, text, generator, config).backward()
    lent = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear) and layer.weight.isnan().any()]
    assert len(lent) > 10 if lends else not lent
    return [parameter.grad for parameter in part.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("recomputes", [True, False], ids=["checkpointing", "plain"])
@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_run: dict[str, Any], name: str, recomputes: bool
) -> None:
    model = open_family(name).tiny(tmp_path / name)
    values = {"model_family": name, "pretrained_model_name_or_path": str(model), "model_type": "lora"}
    config = load(values=tiny_run | values | {"gradient_checkpointing": recomputes}, environ={}).config
    family = open_family(name)(model, config)
    plain = gradients(family, config, lends=False)
    monkeypatch.setattr(LentWeights, "take_back", spoil)
    lent = gradients(family, config, lends=True)
    assert len(plain) == len(lent) > 10
    assert any(bool(one.any()) for one in plain)
    for one, other in zip(plain, lent, strict=True):
        assert torch.equal(one, other)


def test_weights_are_whole_between_the_steps(tiny_model: Path, tiny_run: dict[str, Any]) -> None:
    config = load(values=tiny_run | {"model_type": "lora"}, environ={}).config
    family = open_family("pixart_sigma")(tiny_model, config)
    model, other = family.load_model(torch.float32, CPU), family.load_model(torch.float32, CPU)
    model.requires_grad_(False)
    lend_weights(model, CPU)
    for (name, one), (_, same) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(one, same), name


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model_type", "full"),
        ("lora_type", "lycoris"),
        ("base_model_precision", "int8-quanto"),
        ("dynamo_backend", "inductor"),
    ],
)
def test_what_cannot_be_lent_is_refused(tiny_run: dict[str, Any], option: str, value: str) -> None:
    values = tiny_run | {"model_type": "lora", "enable_group_offload": True}
    assert not find_limits(load(values=values, environ={}).config)
    named = [fault.option for fault in find_limits(load(values=values | {option: value}, environ={}).config)]
    assert option in named


def test_it_is_for_gpus_and_their_memory_alone(tiny_run: dict[str, Any]) -> None:
    config = load(values=tiny_run | {"model_type": "lora", "enable_group_offload": True}, environ={}).config
    assert not wants_lending(config, CPU)
    assert wants_lending(config, torch.device("cuda"))
    there, here = estimate_memory(config, "cuda"), estimate_memory(config, "cpu")
    assert there is not None and here is not None
    assert there.weights == 0 < here.weights


@pytest.mark.gpu
def test_a_gpu_holds_no_more_than_it_computes_with(tmp_path: Path, tiny_run: dict[str, Any]) -> None:
    """Half a gigabyte of weights, and not a quarter of it on the device."""
    model = open_family("pixart_sigma").tiny(tmp_path / "model", width=1024, layers=8)
    values = tiny_run | {"model_type": "lora", "gradient_checkpointing": True}
    config = load(values=values | {"pretrained_model_name_or_path": str(model)}, environ={}).config
    family, device = open_family("pixart_sigma")(model, config), torch.device("cuda")
    base = family.load_model(torch.float32, CPU)
    part = attach(base, config, family, resolve_precision(config, device))
    size = sum(parameter.nbytes for parameter in base.parameters())
    lend_weights(base, device)
    base.train()
    torch.cuda.reset_peak_memory_stats()
    text = family.collate_text([{"prompt_embeds": torch.randn(12, 64)}])
    text = {name: tensor.to(device) for name, tensor in text.items()}
    latents, generator = torch.randn(1, 4, 8, 8, device=device), torch.Generator(device)
    compute_loss(family, base, family.noise_schedule().to(device), latents, text, generator, config).backward()
    assert all(parameter.grad is None or parameter.grad.is_cuda for parameter in part.parameters())
    assert torch.cuda.max_memory_allocated() < size / 4


def test_without_a_gpu_it_is_told_to_have_no_effect(tiny_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(values=tiny_run | {"model_type": "lora", "enable_group_offload": True}, environ={})
    for is_there, said in ((False, "has no effect without a GPU"), (True, "until the backward pass is through")):
        monkeypatch.setattr(preflight, "has_cuda", lambda is_there=is_there: is_there)
        (finding,) = (one for one in preflight.inspect_run(loaded) if one.check == "enable_group_offload")
        assert finding.level == "warning" and said in finding.message
