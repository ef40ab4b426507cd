"""What is published on the Hub is what people load from it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from blocks.huggingface import HuggingFaceDestination
from flowtuner.durable import sha256_of
from flowtuner.engine.run import RunSpec
from flowtuner.engine.session import Session
from flowtuner.options import load
from flowtuner.publishing.snapshot import freeze, release_unit
from tests.blocks.conftest import ignore
from tests.fakes.hub.accounts import ALICE
from tests.fakes.hub.server import Hub

pytestmark = pytest.mark.slow

REPO = "alice/fox-lora"


def train(values: dict[str, Any]) -> Path:
    loaded = load(values=values, environ={})
    session = Session(RunSpec("r1", loaded, Path(values["output_dir"])), lambda *_: None, threading.Event())
    session.cache_text()
    session.cache_latents()
    session.train(session.prepare(None)["total_steps"])
    session.save_release()
    session.close()
    return Path(values["output_dir"])


def publish(output_dir: Path) -> None:
    snapshot = freeze(release_unit(output_dir, "r1", 2, {})).seal()
    assert HuggingFaceDestination(repo_id=REPO).publish(snapshot, ignore).verified


def run_elsewhere(code: str, hub: Hub, folder: Path) -> str:
    """Runs code in a process that knows nothing but the Hub."""
    known = {"HF_ENDPOINT": hub.url, "HF_TOKEN": ALICE, "HF_HOME": str(folder / "fresh"), "HF_HUB_OFFLINE": "0"}
    environ = {**os.environ, **known, "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environ, cwd=folder, timeout=110
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_full_release_loads_as_a_pipeline_with_the_same_tensors(
    tiny_run: dict[str, Any], hub: Hub, tmp_path: Path
) -> None:
    output_dir = train(tiny_run | {"max_train_steps": 2, "hub_model_id": REPO})
    publish(output_dir)
    code = f"""
from diffusers import DiffusionPipeline
DiffusionPipeline.from_pretrained({REPO!r}).transformer.save_pretrained("loaded")
"""
    run_elsewhere(code, hub, tmp_path)
    name = "diffusion_pytorch_model.safetensors"
    assert sha256_of(tmp_path / "loaded" / name) == sha256_of(output_dir / "pipeline" / "transformer" / name)
