"""Configurations of the engine's own tests: the least that a run needs, and what the test is about."""

import pytest

from flowtuner.options import TrainingConfig


@pytest.fixture(scope="session")
def configure(tmp_path_factory):
    """Makes a TrainingConfig of a tiny full fine-tune; keyword arguments are options."""
    folder = tmp_path_factory.mktemp("output")
    least = {
        "model_family": "pixart_sigma",
        "model_type": "full",
        "output_dir": folder,
        "data_backend_config": folder / "multidatabackend.json",
        "optimizer": "torch-adamw",
        "learning_rate": 1e-3,
        "max_train_steps": 10,
        "gradient_checkpointing": False,
    }
    return lambda **options: TrainingConfig(**least | options)
