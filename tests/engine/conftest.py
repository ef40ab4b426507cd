"""Configurations of the engine's own tests: the least that a run needs, and what the test is about."""

import threading
from pathlib import Path

import pytest

from flowtuner.durable import sha256_of
from flowtuner.engine.run import RunSpec
from flowtuner.options import TrainingConfig, load


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


class Run:
    """One process life of a run, without the process."""

    def __init__(self, values: dict, name: str):
        from flowtuner.engine.session import Session  # brings torch, which most tests here do without

        self.output = Path(values["output_dir"]).with_name(name)
        self.events = []
        self.stop = threading.Event()
        loaded = load(values=values | {"output_dir": str(self.output)}, environ={})
        self.session = Session(RunSpec(name, loaded, self.output), self.emit, self.stop)

    def open(self):
        self.session.cache_text()
        self.session.cache_latents()
        self.position = self.session.prepare(None)
        return self

    def emit(self, type, data):
        self.events.append((type, data))

    def losses(self):
        return {data["step"]: data["loss"] for type, data in self.events if type == "training.metric"}

    def warnings(self):
        return [data["message"] for type, data in self.events if type == "notification"]

    def die(self):
        """Ends like a killed process: nothing is saved, the lock is gone."""
        if self.session._lock:
            self.session._lock.release()

    def release(self):
        self.session.save_release()
        return weights_in(self.output)


@pytest.fixture
def start():
    """Starts a run; an earlier one in the same folder dies of it, as it would have of a kill."""
    lives: dict[str, Run] = {}

    def start_one(values: dict, name: str = "run") -> Run:
        if name in lives:
            lives.pop(name).die()
        lives[name] = Run(values, name)
        return lives[name].open()

    yield start_one
    for run in lives.values():
        run.die()


def weights_in(folder: Path) -> dict[str, str]:
    files = [*folder.glob("pipeline/transformer/*.safetensors"), *folder.glob("pytorch_lora_weights.safetensors")]
    assert files
    return {path.name: sha256_of(path) for path in files}
