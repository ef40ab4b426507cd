"""A run's output folder with everything in it that a real one has."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowtuner import durable


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "my run"
    files = {
        "checkpoint-20/transformer/diffusion_pytorch_model.safetensors": "w20",
        "checkpoint-20/optimizer.bin": "moments",
        "checkpoint-20/training_state.json": '{"global_step": 20}',
        "checkpoint-20/.guard": "complete",
        "pipeline/model_index.json": "{}",
        "pipeline/transformer/diffusion_pytorch_model.safetensors": "final",
        "README.md": "# model",
        "cache/vae/shard.safetensors": "cache",
        "logs/events.jsonl": "{}",
        "notes.txt": "private",
        ".env": "TOKEN=secret",
        "pipeline/.env": "TOKEN=secret",
        "pipeline/training.log": "log",
        "checkpoint-30-tmp/optimizer.bin": "half",
        "pipeline/vae-tmp/weights": "half",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "pipeline/passwords").symlink_to("/etc/passwd")
    checkpoint = folder / "checkpoint-20"
    durable.write_json(
        checkpoint / "checkpoint_manifest.json",
        {"version": 1, "checkpoint": "checkpoint-20", "files": durable.record_files(checkpoint)},
    )
    return folder
