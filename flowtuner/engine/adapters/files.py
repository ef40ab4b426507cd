"""Where the files of an adapter are, whatever its kind."""

from __future__ import annotations

from pathlib import Path

from flowtuner.errors import CheckpointError

WEIGHTS = "pytorch_lora_weights.safetensors"
EMA_FOLDER = "ema"


def find_weights(path: Path) -> Path:
    """The adapter file that `init_lora` means: a file, or the one in a folder."""
    path = path.expanduser()
    found = path / WEIGHTS if path.is_dir() else path
    if not found.is_file():
        raise CheckpointError(f"init_lora={path}: there is no {found}; give a LoRA file or a folder with {WEIGHTS}")
    return found
