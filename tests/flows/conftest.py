"""One Prefect server for all flow tests, and runs whose engine counts instead of learning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness

FAKE_ENGINE = Path(__file__).parent.parent / "fakes" / "engine"


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    # Joining the heartbeat's thread costs every flow a second at its end.
    with (
        prefect_test_harness(server_startup_timeout=300),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


@pytest.fixture
def share(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


@pytest.fixture
def options(tmp_path: Path, share: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options of a run of eight counted steps, published to a folder."""
    monkeypatch.setenv("PYTHONPATH", str(FAKE_ENGINE), prepend=":")
    monkeypatch.delenv("FAKE_ENGINE", raising=False)
    return counted_options(tmp_path, share)


def counted_options(root: Path, share: Path) -> dict[str, Any]:
    pictures = root / "pictures"
    pictures.mkdir()
    Image.new("RGB", (64, 64)).save(pictures / "a_red_circle.png")
    dataloader = root / "multidatabackend.json"
    entry = {"id": "pictures", "type": "local", "instance_data_dir": str(pictures), "caption_strategy": "filename"}
    dataloader.write_text(json.dumps([entry | {"resolution": 64, "resolution_type": "pixel"}]))
    return {
        "model_family": "pixart_sigma",
        "--model_type": "full",
        "output_dir": str(root / "my run"),
        "data_backend_config": str(dataloader),
        "train_batch_size": 1,
        "max_train_steps": 8,
        "checkpoint_step_interval": 4,
        "validation_step_interval": 8,
        "validation_prompt": "red",
        "ephemeral": "no",
        "publishing_config": [{"provider": "folder", "path": str(share), "name": "share"}],
    }
