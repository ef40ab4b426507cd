"""AdamW for bfloat16 weights: stochastic rounding keeps the updates that ordinary rounding loses."""

from __future__ import annotations

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
        for number, (group, chunks) in enumerate(zip(self.param_groups, self._chunks, strict=True)):
            for place, chunk in enumerate(chunks):
                self._update(group, chunk, self._bits(chunk, mix(self._seed, self._steps, number, place)))

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
            for chunk, part in zip(chunks, flat.split(sizes), strict=True):
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
        # A second moment moves by a thousandth of itself per step, less than bfloat16 can show: rounded by chance too.
        chunk.square.copy_(_round_by_chance(square, bits[: square.numel()]))
        rounded = _round_by_chance(weights, bits[square.numel() : 2 * square.numel()])
        pieces = rounded.split([parameter.numel() for parameter in chunk.parameters])
        shaped = [piece.view_as(parameter) for piece, parameter in zip(pieces, chunk.parameters, strict=True)]
        torch._foreach_copy_([parameter.data for parameter in chunk.parameters], shaped)

    def _bits(self, chunk: Chunk, seed: int) -> torch.Tensor:
        """Sixteen random bits for every number that is rounded by chance, two per weight."""
        device = chunk.mean.device
        if device not in self._generators:
            self._generators[device] = torch.Generator(device)
        generator = self._generators[device].manual_seed(seed)
        # One draw of 64 bits serves four numbers: drawing is the dearest part on a CPU.
        draws = torch.empty(chunk.mean.numel() // 2 + 1, dtype=torch.int64, device=device)
        return draws.random_(-(2**63), None, generator=generator).view(torch.int16)  # type: ignore[call-overload,no-any-return]

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


def _round_by_chance(values: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Rounds float32 (which is overwritten) to bfloat16, up or down in proportion to the nearness."""
    # A bfloat16 is the upper half of a float32: adding 16 random bits carries into it with the right probability.
    values.view(torch.int32).add_(bits.view(torch.uint16))
    return values.view(torch.bfloat16)[1::2]
