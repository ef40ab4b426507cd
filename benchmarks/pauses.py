"""How long a checkpoint keeps training waiting, over a plain write of the same tensors."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.ground import configure, open_session
from benchmarks.harness import Row, compare

WIDTH, LAYERS = 768, 4


def measure_pause(ground: Path, rounds: int) -> Row:
    """Full training of a middling model: weights and both moments; hashed, flushed and renamed while it goes on."""
    import torch
    from safetensors.torch import save_file

    from flowtuner.engine.families import open_family

    model = open_family("pixart_sigma").tiny(ground / "middling", sample_size=16, width=WIDTH, layers=LAYERS)
    options = {"pretrained_model_name_or_path": str(model), "checkpoints_total_limit": 1}
    session = open_session(configure(ground, "pause", **options))
    session.train(1)
    states = session._trainer.optimizer.state_dict()["state"]
    tensors = {f"weight {name}": tensor.detach() for name, tensor in session._trainer.model.state_dict().items()}
    for number, state in states.items():
        tensors |= {f"{number} {name}": one for name, one in state.items() if isinstance(one, torch.Tensor)}
    plain = ground / "plain.safetensors"

    def clear() -> None:
        session.settle()
        plain.unlink(missing_ok=True)  # a checkpoint goes to a new place too
        os.sync()  # what is still on its way to the disk would slow the next one down

    ratio = compare(
        lambda: session.save_checkpoint(waits=False), lambda: save_file(tensors, plain), rounds, between=clear
    )
    mib = sum(tensor.nbytes for tensor in tensors.values()) / (1 << 20)
    session.close()
    return Row("checkpoint: training waits, over a plain write", ratio, at_most=1.2, note=f"{mib:.0f} MiB of tensors")
