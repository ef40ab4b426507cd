"""Validation: what is drawn, where it goes, and that training does not notice."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from flowtuner.engine.ema import Ema
from flowtuner.engine.families import open_family
from flowtuner.engine.seed import capture_states
from flowtuner.engine.validation import parse_resolutions, run_validation, texts_to_encode, validation_prompts
from flowtuner.errors import ConfigError

CPU = torch.device("cpu")


class Studio:
    """A tiny model with everything that validation takes; some parts can be told to fail."""

    def __init__(self, config, source):
        self.config = config
        self.family = open_family("pixart_sigma")(source, config)
        self.model = self.family.load_model(torch.float32, CPU).train()
        self.encoder = self.family.load_text_encoder(torch.float32, CPU)

    def embed(self, prompt):
        return self.encoder.encode([prompt])[0]

    def load_vae(self):
        return self.family.load_vae(torch.float32, CPU)

    def run(self, output_dir, step=7, **extra):
        arguments = {"vae_loader": self.load_vae, "embeds": self.embed, "config": self.config} | extra
        return run_validation(self.family, self.model, step=step, output_dir=output_dir, **arguments)


@pytest.fixture
def studio(configure, tiny_model):
    def make(**options):
        least = {
            "validation_prompt": "a red circle",
            "validation_resolution": "32x32",
            "validation_num_inference_steps": 2,
            "validation_guidance": 3.0,
            "seed": 1,
        }
        return Studio(configure(**least | options), tiny_model)

    return make


def size_of(path):
    with Image.open(path) as image:
        return image.size


def names(prompts):
    return [(entry.shortname, entry.prompt) for entry in prompts]


def test_prompts_come_from_the_option_and_the_libraries(configure, tmp_path):
    library = tmp_path / "library.json"
    library.write_text(json.dumps({"hat": "a hat", "cat": "a cat"}))
    config = configure(validation_prompt="a dog", user_prompt_library=library)
    assert names(validation_prompts(config)) == [
        ("unconditional", ""),
        ("hat", "a hat"),
        ("cat", "a cat"),
        ("validation", "a dog"),
    ]
    assert texts_to_encode(config) == ["", "a hat", "a cat", "a dog", "blurry, cropped, ugly"]


def test_the_built_in_library(configure):
    prompts = validation_prompts(configure(validation_prompt_library=True, validation_disable_unconditional=True))
    assert len(prompts) == 10
    assert all(entry.prompt for entry in prompts)


@pytest.mark.parametrize("options", [{}, {"validation_prompt": "a dog", "validation_disable": True}])
def test_nothing_asked_for_is_nothing_drawn(configure, options):
    assert validation_prompts(configure(**options)) == []
    assert texts_to_encode(configure(**options)) == []


@pytest.mark.parametrize("content", ["{broken", '["a list"]', '{"name": 5}'])
def test_a_broken_library_is_a_configuration_error(configure, tmp_path, content):
    library = tmp_path / "library.json"
    library.write_text(content)
    with pytest.raises(ConfigError, match="user_prompt_library"):
        validation_prompts(configure(user_prompt_library=library))


def test_prompts_and_sizes_do_not_need_torch():
    code = "import sys, flowtuner.engine.validation; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("1024", [(1024, 1024)]),
        ("32x32", [(32, 32)]),
        ("1280x832, 512", [(1280, 832), (512, 512)]),
        ("1", [(1024, 1024)]),
        ("0.5", [(704, 704)]),
        ("0.25", [(512, 512)]),
        ("128", [(128, 128)]),
        ("512,512", [(512, 512)]),
    ],
)
def test_resolutions(text, sizes):
    assert parse_resolutions(text) == sizes


@pytest.mark.parametrize("text", ["", "wide", "0", "-5", "64x", "0x64", "64x64x64", "nan", "inf"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="validation_resolution"):
        parse_resolutions(text)


def test_pictures_and_sheet_are_written(studio, tmp_path):
    report = studio(num_validation_images=2, validation_resolution="32x32,32x64").run(tmp_path)
    assert report.error is None
    assert report.prompts == ("", "a red circle")
    assert [path.name for path in report.images] == [
        f"step_7_{name}_{size}_{number}.png"
        for size in ("32x32", "32x64")
        for name in ("unconditional", "validation")
        for number in (0, 1)
    ]
    assert report.sheet == tmp_path / "validation_images" / "step_7_sheet.png"
    assert size_of(report.images[-1]) == (32, 64)
    assert size_of(report.sheet)[0] > 4 * 192


def test_a_seed_fixes_the_picture_and_zero_is_a_seed(studio, tmp_path):
    def draw(**options):
        return studio(**options).run(tmp_path).images[-1].read_bytes()

    assert draw(validation_seed=3) == draw(validation_seed=3, seed=9) == draw(seed=3)
    assert draw(validation_seed=0) == draw(validation_seed=0, seed=9) != draw(seed=9)


def test_random_seeds_differ_between_steps_and_repeat_after_a_resume(studio, tmp_path):
    stage = studio(validation_randomize=True)
    first, again, later = (stage.run(tmp_path, step=step).images[-1].read_bytes() for step in (1, 1, 2))
    assert first == again != later


def test_training_does_not_notice(studio, tmp_path):
    stage = studio()
    weights = [parameter.detach().clone() for parameter in stage.model.parameters()]
    before = capture_states()
    assert stage.run(tmp_path).error is None
    after = capture_states()
    assert before["python"] == after["python"] == random.getstate()
    assert torch.equal(before["torch"], after["torch"])
    assert np.array_equal(before["numpy"][1], after["numpy"][1])
    assert stage.model.training
    assert all(torch.equal(one, other) for one, other in zip(weights, stage.model.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in stage.model.parameters())


def test_ema_weights_are_drawn_and_put_back(studio, tmp_path, configure):
    stage = studio()
    ema = Ema(list(stage.model.parameters()), configure())
    plain = stage.run(tmp_path).images[-1].read_bytes()
    with torch.no_grad():
        for parameter in stage.model.parameters():
            parameter.add_(0.05)
    moved = stage.run(tmp_path).images[-1].read_bytes()
    averaged = stage.run(tmp_path, ema_weights=ema.swapped()).images[-1].read_bytes()
    assert plain == averaged != moved
    assert stage.run(tmp_path).images[-1].read_bytes() == moved


def raise_error(error):
    def fail(*_):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (OSError(28, "No space left on device"), "No space left"),
        (MemoryError("no memory"), "no memory"),
        (ValueError("height is odd"), "height is odd"),
    ],
)
def test_a_failure_is_reported_and_training_goes_on(studio, tmp_path, error, words):
    stage = studio()
    before = torch.get_rng_state()
    report = stage.run(tmp_path, embeds=raise_error(error))
    assert words in report.error
    assert report.images == ()
    assert stage.model.training
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("resolution", ["33x33", "wide"])
def test_an_impossible_size_is_reported(studio, tmp_path, resolution):
    report = studio(validation_resolution=resolution).run(tmp_path)
    assert report.error
    assert "Traceback" not in report.error


def test_a_stop_ends_between_pictures(studio, tmp_path):
    report = studio().run(tmp_path, is_stopped=lambda: True)
    assert report.error == "stopped on request after 0 of 2 pictures"


def test_a_stop_ends_a_long_picture_within_a_step(studio, tmp_path):
    stage = studio(validation_num_inference_steps=1000)
    looks = []

    def is_stopped():
        looks.append(1)
        return len(looks) > 4

    report = stage.run(tmp_path, is_stopped=is_stopped)
    assert report.error == "stopped on request after 0 of 2 pictures"
    assert len(looks) == 5
    assert not stage.model._forward_pre_hooks


def test_no_prompts_load_nothing(studio, tmp_path):
    stage = studio(validation_prompt=None)
    report = stage.run(tmp_path, vae_loader=raise_error(AssertionError("loaded")))
    assert (report.images, report.sheet, report.error) == ((), None, None)
