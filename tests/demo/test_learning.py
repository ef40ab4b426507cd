"""The parts of the demo that need torch, in small."""

import hashlib
import shutil

import pytest
import torch

from flowtuner import durable
from flowtuner.demo import autoencoder, evaluate, prepare
from flowtuner.demo.run import EXAMPLE, PLACE
from flowtuner.demo.scores import read_comparison
from flowtuner.demo.shapes import every_figure, write_dataset
from flowtuner.engine.families import open_family
from flowtuner.engine.run import RunSpec
from flowtuner.options import load

FEW_STEPS = 6


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_dataset(folder / "pictures", 18, seed=0)
    prepare.build_model(folder / "model", seed=0, steps=FEW_STEPS)
    return folder


@pytest.fixture(scope="module")
def config(demo):
    return load(config_file=EXAMPLE, environ={PLACE: str(demo)})


def test_the_same_seed_gives_the_same_autoencoder(demo, tmp_path):
    prepare.build_model(tmp_path / "model", seed=0, steps=FEW_STEPS)
    weights = "vae/diffusion_pytorch_model.safetensors"
    assert _digest(demo / "model" / weights) == _digest(tmp_path / "model" / weights)


def test_latents_leave_the_autoencoder_with_a_deviation_of_one(demo, config):
    vae = open_family("pixart_sigma")(demo / "model", config.config).load_vae(torch.float32, torch.device("cpu"))
    latents = vae.encode(autoencoder.draw_batch(seed=9)[:64])
    assert latents.shape == (64, 4, 8, 8)
    assert 0.8 < float(latents.std()) < 1.25


def test_the_model_is_a_whole_one_with_the_schedule_of_small_pictures(demo):
    assert open_family("pixart_sigma").check_source(demo / "model") == []
    scheduler = durable.read_json(demo / "model" / "scheduler" / "scheduler_config.json")
    assert (scheduler["beta_schedule"], scheduler["beta_end"]) == ("scaled_linear", 0.012)


def test_untrained_models_draw_nothing_right_and_the_sheet_shows_it(demo, config, tmp_path):
    spec = RunSpec("test", config, tmp_path)
    shutil.copytree(demo / "model", tmp_path / "pipeline")
    result = evaluate.compare(spec, tmp_path)
    assert result.prompts == 2 * len(every_figure())
    assert result.before == result.after
    assert result.after.both < 0.2
    assert (tmp_path / "before_after.png").stat().st_size > 10_000
    assert read_comparison(tmp_path) == result


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
