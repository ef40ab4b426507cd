"""Dataset entries, options and pictures for the tests of the data room."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from flowtuner.engine.data.scan import scan_datasets


@pytest.fixture
def make_config():
    def make(**values):
        return SimpleNamespace(**{"aspect_bucket_alignment": 8, "resolution": 32, "resolution_type": "pixel"} | values)

    return make


@pytest.fixture
def make_entry(tmp_path):
    def make(**values):
        defaults = {
            "id": "pictures",
            "type": "local",
            "dataset_type": "image",
            "instance_data_dir": str(tmp_path / "pictures"),
            "repeats": 0,
            "probability": 1.0,
            "train_batch_size": None,
        }
        return SimpleNamespace(**defaults | values)

    return make


@pytest.fixture
def scan(tmp_path, make_config):
    def run(*entries, **values):
        config = make_config(**values)
        return scan_datasets(entries, config, index_dir=tmp_path / "index", report=lambda done, total: None)

    return run


@pytest.fixture
def draw(tmp_path):
    def save(name, size=(40, 32), seed=0, **options):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, **options)
        return path

    return save
