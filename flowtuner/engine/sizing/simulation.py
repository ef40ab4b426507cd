"""A step, an encoding and a drawing that are gone through without being computed: what each holds at its peak."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from flowtuner.engine.adapters import attach
from flowtuner.engine.diffusion import compute_loss
from flowtuner.engine.precision import Precision
from flowtuner.engine.sizing.ledger import Ledger
from flowtuner.engine.sizing.work import Work
from flowtuner.engine.validation.sizes import parse_resolutions

if TYPE_CHECKING:
    from flowtuner.engine.family import Rows, Vae

META = torch.device("meta")
BOTH_GUIDED = 2
"""Guidance asks the model about the prompt and about its contrary at once."""


@dataclass(frozen=True)
class Peaks:
    """Bytes that come on top of weights, the optimizer's state and the average."""

    weights: int
    """How many the base has, with what stands in buffers beside them left out."""

    trained: int
    """How many numbers are trained."""

    width: int
    """Bytes of one number of the base, the latents and the text."""

    latent: torch.Size
    encoding: int
    step: int
    """Gradients included."""

    gradients: int

    drawing: int


def simulate(work: Work, precision: Precision, device: torch.device) -> Peaks:
    """Goes through a run's parts on a device, with tensors that hold nothing."""
    config = work.family.config
    # A start that is computed from the weights needs weights; what is attached is of the same size.
    plain = config.model_copy(update={"lora_init_type": "default", "init_lora": None})
    model = work.family.build_model(precision.base, META)
    weights = sum(one.numel() for one in getattr(model, "base", model).parameters())
    part = attach(model, plain, work.family, precision)
    vae = work.family.build_vae(precision.base, META)
    with torch.no_grad():
        latent = vae.encode(work.draw_pixels(1, precision.base).to(META)).shape[1:]
    batch = work.batch(latent, precision.base)
    guided = work.family.collate_text([work.draw_row(latent, precision.base)] * BOTH_GUIDED)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in (model, vae.module):
            _hold_nothing(module, device)
        model.train()
        shapes = {name: _fake(tensor, device, precision.base) for name, tensor in batch.text.items()}
        latents = _fake(batch.latents, device, precision.base)
        step, gradients = _simulate_step(work, model, latents, shapes, precision)
        pixels = _fake(work.draw_pixels(config.vae_batch_size, precision.base), device, precision.base)
        encoding = _simulate_encoding(vae, pixels)
        texts = {name: _fake(tensor, device, precision.base) for name, tensor in guided.items()}
        drawing = _simulate_drawing(work, model, vae, latents[:1], texts)
    trained = sum(one.numel() for one in part.parameters())
    return Peaks(weights, trained, precision.base.itemsize, latent, encoding, step, gradients, drawing)


def _simulate_step(
    work: Work, model: torch.nn.Module, latents: torch.Tensor, text: Rows, precision: Precision
) -> tuple[int, int]:
    schedule, generator = work.family.noise_schedule(), torch.Generator(latents.device)
    cast: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if precision.autocast:
        cast = torch.autocast(latents.device.type, dtype=precision.autocast)
    with Ledger(_tensors_of(model)) as ledger:
        with cast:
            loss = compute_loss(work.family, model, schedule, latents, text, generator, work.family.config)
        loss.backward()  # type: ignore[no-untyped-call]
    own = (parameter.grad for module in _find_modules(model, set()) for parameter in module.parameters(recurse=False))
    gradients = sum(one.untyped_storage().nbytes() for one in own if one is not None)
    model.zero_grad(set_to_none=True)
    return int(ledger.peak), gradients


def _simulate_encoding(vae: Vae, pixels: torch.Tensor) -> int:
    with Ledger(_tensors_of(vae.module)) as ledger:
        vae.encode(pixels)
    return int(ledger.peak) + pixels.untyped_storage().nbytes()


def _simulate_drawing(work: Work, model: torch.nn.Module, vae: Vae, latents: torch.Tensor, texts: Rows) -> int:
    config = work.family.config
    sizes = parse_resolutions(config.validation_resolution, config.aspect_bucket_alignment)
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    edges = height // vae.scale, width // vae.scale
    empty = latents.new_zeros(1, *latents.shape[1:-2], *edges)
    with torch.no_grad(), Ledger([*_tensors_of(model), *_tensors_of(vae.module)]) as ledger:
        noisy = empty.repeat(BOTH_GUIDED, *[1] * (empty.ndim - 1))
        work.family.predict(model, noisy, torch.full((BOTH_GUIDED,), 500, device=empty.device), texts)
        del noisy
        vae.decode(empty)
    return int(ledger.peak)


def _tensors_of(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    for module in _find_modules(model, set()):
        yield from module.parameters(recurse=False)
        yield from module.buffers(recurse=False)


def _find_modules(model: torch.nn.Module, seen: set[int]) -> Iterator[torch.nn.Module]:
    """All modules, also those that stand beside a layer in a list of its own, as LyCORIS has them."""
    for module in model.modules():
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield module
        for listed in [value for value in vars(module).values() if isinstance(value, list)]:
            for beside in listed:
                if isinstance(beside, torch.nn.Module):
                    yield from _find_modules(beside, seen)


def _fake(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor  # lengths and masks are looked at: these keep their values
    return torch.empty(tensor.shape, dtype=dtype, device=device)


def _hold_nothing(model: torch.nn.Module, device: torch.device) -> None:
    """Puts tensors on the device into the model's places that have a size and nothing else."""
    for module in _find_modules(model, set()):
        for name, given in module._parameters.items():
            if given is not None:
                empty = torch.empty(given.shape, dtype=given.dtype, device=device)
                module._parameters[name] = torch.nn.Parameter(empty, requires_grad=given.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
