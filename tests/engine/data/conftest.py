"""Dataset entries, options and pictures for the tests of the data room."""

import numpy as np
import pytest
from PIL import Image

from flowtuner.engine.data.scan import scan_datasets
from flowtuner.options import DatasetEntry, TrainingConfig


@pytest.fixture
def make_config(tmp_path):
    def make(**values):
        defaults = {
            "model_family": "pixart_sigma",
            "model_type": "full",
            "output_dir": tmp_path / "output",
            "data_backend_config": tmp_path / "dataloader.json",
            "aspect_bucket_alignment": 8,
            "resolution": 32,
            "resolution_type": "pixel",
        }
        return TrainingConfig(**defaults | values)

    return make


@pytest.fixture
def make_entry(tmp_path):
    def make(**values):
        defaults = {
            "id": "pictures",
            "instance_data_dir": tmp_path / "pictures",
        }
        return DatasetEntry(**defaults | values)

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
