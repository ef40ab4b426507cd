"""What is said of memory before anything is loaded, against what is there once it is."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from flowtuner.engine import estimate
from flowtuner.engine.adapters import attach
from flowtuner.engine.checkpoints import list_checkpoints
from flowtuner.engine.ema import Ema
from flowtuner.engine.estimate import estimate_memory, find_shortage
from flowtuner.engine.families import choose_source, open_family
from flowtuner.engine.optim import create_optimizer
from flowtuner.engine.precision import resolve_precision
from flowtuner.engine.preflight import inspect_run
from flowtuner.engine.ranks import Ranks
from flowtuner.engine.run import RunSpec
from flowtuner.engine.session import Session
from flowtuner.options import load

CPU = torch.device("cpu")
CASES = [
    {},
    {"optimizer": "adamw_bf16"},
    {"optimizer": "optimi-adamw", "base_model_precision": "bf16"},
    {"optimizer": "optimi-lion"},
    {"optimizer": "torch-adafactor"},
    {"optimizer": "prodigy"},
    {"optimizer": "adamw_schedulefree", "lr_scheduler": "constant"},
    {"use_ema": True},
    {"model_type": "lora", "lora_rank": 8},
    {"model_type": "lora", "lora_rank": 4, "base_model_precision": "bf16", "optimizer": "adamw_bf16"},
]


def bytes_of(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(item)


@pytest.mark.parametrize("options", CASES, ids=lambda options: "-".join(map(str, options.values())) or "plain")
def test_what_was_said_is_what_is_there(tiny_run: dict[str, Any], options: dict[str, Any]) -> None:
    loaded = load(values=tiny_run | options)
    config = loaded.config
    said = estimate_memory(config, "cpu")
    assert said is not None
    precision = resolve_precision(config, CPU)
    family = open_family(config.model_family)(choose_source(config), config)
    model = family.load_model(precision.base, CPU)
    weights = bytes_of(model.parameters())
    part = attach(model, config, family, precision)
    parameters = part.parameters()
    optimizer = create_optimizer(config, parameters, CPU)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    # Ours for bfloat16 keeps its moments in a place of its own.
    states = list(tensors_in(dict(optimizer.state))) or list(tensors_in(optimizer.state_dict()))
    # The smallest vectors cost factored optimizers and counters a little that the estimate leaves out.
    assert said.weights == pytest.approx(weights, rel=0.001)
    assert said.gradients == pytest.approx(bytes_of(parameter.grad for parameter in parameters), rel=0.001)
    assert said.optimizer == pytest.approx(bytes_of(states), rel=0.05, abs=0.06 * weights)
    if config.model_type == "lora":
        assert said.adapter == bytes_of(parameters)
    if config.use_ema:
        assert said.average == bytes_of(Ema(parameters, config)._average)


def test_what_cannot_fit_is_refused_with_what_would(tiny_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(values=tiny_run | {"use_ema": True}).config
    need = estimate_memory(config, "cpu")
    assert need is not None
    monkeypatch.setattr(estimate, "find_device", lambda: ("cpu", need.total))
    assert find_shortage(config) is None
    monkeypatch.setattr(estimate, "find_device", lambda: ("cpu", need.total // 2))
    shortage = find_shortage(config)
    assert shortage is not None
    problem, remedy = shortage
    assert "will not fit" in problem and "for the optimizer" in problem
    assert "model_type=lora" in remedy
    assert "use_ema=false with optimizer=adamw_bf16" in remedy  # either alone would not do
    errors = [str(each) for each in inspect_run(load(values=tiny_run | {"use_ema": True})) if each.level == "error"]
    assert any(error.startswith("memory: will not fit") for error in errors)


def test_every_optimizer_is_known() -> None:
    from flowtuner.engine.optim.recipes import RECIPES

    paged = {name for name in RECIPES if name.endswith("-paged")}  # their states live in the machine's memory
    assert set(RECIPES) - paged == set(estimate.STATES) | set(estimate.STATE_BYTES)


def test_the_largest_models_are_counted_without_their_weights(tmp_path: Path, tiny_run: dict[str, Any]) -> None:
    """A header says all: twelve billion weights need no twelve billion weights."""
    folder = tmp_path / "flux" / "transformer"
    folder.mkdir(parents=True)
    header = json.dumps({"blocks.0.weight": {"dtype": "BF16", "shape": [12_000_000, 1000], "data_offsets": [0, 0]}})
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode())
    options = tiny_run | {"model_family": "flux", "pretrained_model_name_or_path": str(tmp_path / "flux")}
    found = estimate_memory(load(values=options).config, "cuda")
    assert found is not None
    assert found.total == 12_000_000_000 * 16  # weights, gradients and two moments in float32


def test_a_model_that_is_cut_up_takes_a_share_of_each_gpu(tiny_run: dict[str, Any]) -> None:
    values = tiny_run | {"optimizer": "torch-adamw", "num_processes": 2}
    whole = estimate_memory(load(values=values).config, "cuda")
    shared = estimate_memory(load(values=values | {"fsdp_enable": True}).config, "cuda")
    assert whole is not None and shared is not None
    assert shared.total == pytest.approx(whole.total / 2, rel=1e-3)
    remedies = list(estimate.find_remedies(load(values=values).config, "cuda", int(whole.total * 0.6)))
    assert any("fsdp_enable=true" in remedy for remedy in remedies)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "torch-adamw"},
        {"optimizer": "torch-adamw", "use_ema": True},
        {"model_type": "lora", "lora_rank": 64, "optimizer": "torch-adamw"},
    ],
    ids=["full", "ema", "lora"],
)
def test_a_checkpoint_takes_what_was_said(tiny_run: dict[str, Any], options: dict[str, Any]) -> None:
    loaded = load(values=tiny_run | options | {"max_train_steps": 2})
    spec = RunSpec("run", loaded, Path(loaded.config.output_dir))
    session = Session(spec, lambda kind, data: None, threading.Event(), Ranks())
    session.cache_text()
    session.cache_latents()
    session.prepare(None)
    session.train(1)
    session.save_checkpoint()
    session.close()
    (folder,) = list_checkpoints(spec.output_dir)
    written = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert estimate.estimate_checkpoint(loaded.config) == pytest.approx(written, rel=0.05)
