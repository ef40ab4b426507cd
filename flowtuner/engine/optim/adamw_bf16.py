"""AdamW for bfloat16 weights: stochastic rounding keeps the updates that ordinary rounding loses."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from flowtuner.engine.seed import mix
from flowtuner.errors import CheckpointError

CHUNK_ON_CPU = 1 << 18  # stays in the cache between passes
CHUNK_ELSEWHERE = 1 << 26  # few launches, and a bounded float32 workspace


@dataclass
class Chunk:
    """Parameters that are updated together, and their moments as flat bfloat16 tensors."""

    parameters: list[torch.nn.Parameter]
    mean: torch.Tensor
    square: torch.Tensor


class AdamWBf16(torch.optim.Optimizer):
    """AdamW whose weights and moments take two bytes each; random bits depend on the step alone, so resume is exact."""

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 1e-2,
        seed: int = 0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        wrong = {str(parameter.dtype) for parameter in self._all() if parameter.dtype is not torch.bfloat16}
        if wrong:
            raise ValueError(f"adamw_bf16 trains bfloat16 weights, these are {', '.join(sorted(wrong))}")
        self._steps = 0
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}
        self._chunks = [list(_make_chunks(group["params"])) for group in self.param_groups]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Makes one update; a parameter without a gradient counts as one with a gradient of zero."""
        self._steps += 1
        bits = self._draw_bits()
        for number, (group, chunks) in enumerate(zip(self.param_groups, self._chunks, strict=True)):
            for place, chunk in enumerate(chunks):
                # Every chunk flips the same draw by a number of its own.
                flip = mix(self._seed, self._steps, number, place) & 0xFFFF
                self._update(group, chunk, bits[chunk.mean.device][: chunk.mean.numel()] ^ flip)

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers; torch's own form would change the moments' dtype on loading."""
        chunks = [chunk for group in self._chunks for chunk in group]
        return {
            "step": self._steps,
            "mean": [chunk.mean for chunk in chunks],
            "square": [chunk.square for chunk in chunks],
            "param_groups": [
                {name: value for name, value in group.items() if name != "params"} for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the state back, also on a device whose chunks are of another size."""
        chunks = [chunk for group in self._chunks for chunk in group]
        sizes = [chunk.mean.numel() for chunk in chunks]
        for name in ("mean", "square"):
            flat = torch.cat(state_dict[name])
            if flat.numel() != sum(sizes):
                raise CheckpointError("the optimizer state belongs to another model or other adapter options")
            for chunk, part in zip(chunks, torch.split(flat, sizes), strict=True):
                getattr(chunk, name).copy_(part)
        self._steps = state_dict["step"]
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update(saved)

    def _update(self, group: dict[str, Any], chunk: Chunk, bits: torch.Tensor) -> None:
        beta1, beta2 = group["betas"]
        gradient = _flatten([_gradient_of(parameter) for parameter in chunk.parameters])
        mean = chunk.mean.float().lerp_(gradient, 1 - beta1)
        square = chunk.square.float().mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        chunk.mean.copy_(mean)
        correction1, correction2 = 1 - beta1**self._steps, 1 - beta2**self._steps
        scale = (square / correction2).sqrt_().add_(group["eps"])
        weights = _flatten([parameter.data for parameter in chunk.parameters])
        weights.mul_(1 - group["lr"] * group["weight_decay"])
        weights.addcdiv_(mean, scale, value=-group["lr"] / correction1)
        _store(weights, chunk.parameters, bits)
        # A second moment moves by a thousandth of itself per step, less than bfloat16 can show: rounded by chance too.
        chunk.square.copy_(_round_by_chance(square, bits))

    def _draw_bits(self) -> dict[torch.device, torch.Tensor]:
        """Sixteen random bits for every weight of the largest chunk; drawing is the dearest part on a CPU."""
        sizes: dict[torch.device, int] = {}
        for chunk in itertools.chain.from_iterable(self._chunks):
            sizes[chunk.mean.device] = max(sizes.get(chunk.mean.device, 0), chunk.mean.numel())
        return {device: self._draw(device, size) for device, size in sizes.items()}

    def _draw(self, device: torch.device, size: int) -> torch.Tensor:
        generator = self._generators.setdefault(device, torch.Generator(device))
        generator.manual_seed(mix(self._seed, self._steps))
        draws = torch.empty(size // 4 + 1, dtype=torch.int64, device=device)
        draws.random_(-(2**63), None, generator=generator)
        return draws.view(torch.uint16).to(torch.int32)

    def _all(self) -> Iterator[torch.nn.Parameter]:
        for group in self.param_groups:
            yield from group["params"]


def _make_chunks(parameters: list[torch.nn.Parameter]) -> Iterator[Chunk]:
    gathered: list[torch.nn.Parameter] = []
    for parameter in parameters:
        limit = CHUNK_ON_CPU if parameter.device.type == "cpu" else CHUNK_ELSEWHERE
        if gathered and sum(one.numel() for one in gathered) + parameter.numel() > limit:
            yield _make_chunk(gathered)
            gathered = []
        gathered.append(parameter)
    if gathered:
        yield _make_chunk(gathered)


def _make_chunk(parameters: list[torch.nn.Parameter]) -> Chunk:
    size = sum(parameter.numel() for parameter in parameters)
    zeros = torch.zeros(size, dtype=torch.bfloat16, device=parameters[0].device)
    return Chunk(list(parameters), zeros, zeros.clone())


def _gradient_of(parameter: torch.nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _flatten(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors]).float()


def _store(weights: torch.Tensor, parameters: list[torch.nn.Parameter], bits: torch.Tensor) -> None:
    pieces = torch.split(_round_by_chance(weights, bits), [parameter.numel() for parameter in parameters])
    shaped = [piece.view_as(parameter) for piece, parameter in zip(pieces, parameters, strict=True)]
    torch._foreach_copy_([parameter.data for parameter in parameters], shaped)


def _round_by_chance(values: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Rounds float32 in place to what bfloat16 can hold, up or down in proportion to the nearness."""
    # A bfloat16 is the upper half of a float32: adding 16 random bits carries into it with the right probability.
    values.view(torch.int32).add_(bits).bitwise_and_(-65536)
    return values
