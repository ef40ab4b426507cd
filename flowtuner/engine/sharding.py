"""A model cut up over all processes (FSDP2): each keeps its share of every weight, moment and average."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from flowtuner.engine.adapters import TrainedPart
from flowtuner.engine.compilation import repeated_blocks


class Sharding:
    """Cuts a model and its trained part up, block by block, so that one block at a time is whole while it computes."""

    def __init__(self, model: torch.nn.Module, part: TrainedPart, world: int, device: torch.device) -> None:
        self._model, self._part = model, part
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._paths = [names[id(parameter)] for parameter in part.parameters()]
        mesh = init_device_mesh(device.type, (world,))
        for piece in [*repeated_blocks(model), model]:
            fully_shard(piece, mesh=mesh)
        part.stand_in(self._present())

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Every process holds all weights while this lasts; computing with them then needs nobody else.

        All processes have to enter it; what they do inside, and when they leave, is their own affair.
        """
        pieces = [module for module in self._model.modules() if isinstance(module, FSDPModule)]
        for piece in pieces:
            piece.unshard()
            piece.set_reshard_after_forward(False, recurse=False)
        self._part.stand_in(self._present())
        try:
            yield
        finally:
            for piece in pieces:
                piece.reshard()
                piece.set_reshard_after_forward(piece is not self._model, recurse=False)
            self._part.stand_in(self._present())

    def _present(self) -> list[torch.nn.Parameter]:
        present = dict(self._model.named_parameters())
        return [present[path] for path in self._paths]
