"""ControlNet on pairs: what is trained and what is not, how it is saved, resumed, drawn with and refused."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from PIL import Image

from flowtuner.durable import sha256_of
from flowtuner.engine.adapters import attach
from flowtuner.engine.diffusion import compute_loss
from flowtuner.engine.families import open_family
from flowtuner.engine.precision import resolve_precision
from flowtuner.engine.preflight import inspect_run
from flowtuner.options import load
from tests.conftest import draw_pictures

CPU = torch.device("cpu")
FAMILIES = ("sd1x", "sdxl")
WEIGHTS = "controlnet/diffusion_pytorch_model.safetensors"
torch.set_num_threads(1)
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {name: open_family(name).tiny(tmp_path_factory.mktemp("models") / name) for name in FAMILIES}


@pytest.fixture
def control_run(tmp_path, tiny_run, models):
    """Sixteen pictures and the outline of each; keyword arguments are options."""
    for path in draw_pictures(tmp_path / "outlines", 16).iterdir():
        with Image.open(path) as picture:
            picture.convert("L").point(lambda value: 255 * (value > 40)).save(path)
    dataloader = Path(tiny_run["data_backend_config"])
    entries = json.loads(dataloader.read_text())
    entries[0] |= {"conditioning_data": "outlines", "crop": True}
    entries.append(
        {
            "id": "outlines",
            "dataset_type": "conditioning",
            "conditioning_type": "controlnet",
            "instance_data_dir": str(tmp_path / "outlines"),
            "resolution": 32,
            "resolution_type": "pixel",
        }
    )
    dataloader.write_text(json.dumps(entries))

    def make(name, **options):
        source = {"model_family": name, "pretrained_model_name_or_path": str(models[name]), "controlnet": True}
        return tiny_run | source | {"max_train_steps": 4} | options

    return make


def inputs_of(family, count=2):
    rows = family.load_text_encoder(torch.float32, CPU).encode(["a circle"])
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(count, 3, 32, 32, generator=generator) * 2 - 1
    text = family.collate_text([family.add_references(rows[0], [one]) for one in pictures])
    return torch.randn(count, 4, 8, 8, generator=generator), text


def test_a_new_controlnet_changes_nothing_and_is_all_that_is_trained(configure, models):
    config = configure(model_family="sdxl", controlnet=True)
    family = open_family("sdxl")(models["sdxl"], config)
    model = family.load_model(torch.float32, CPU)
    part = attach(model, config, family, resolve_precision(config, CPU))
    latents, text = inputs_of(family)
    plain = {name: tensor for name, tensor in text.items() if name != "reference_control"}
    base = UNet2DConditionModel.from_pretrained(models["sdxl"], subfolder="unet")
    timesteps = torch.tensor([500, 20])
    with torch.no_grad():
        assert torch.equal(
            family.predict(model, latents, timesteps, text), family.predict(base, latents, timesteps, plain)
        )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert [id(parameter) for parameter in trained] == [id(parameter) for parameter in part.parameters()]
    assert len(trained) == len(list(model.controlnet.parameters()))


@pytest.mark.parametrize("name", [FAMILIES[0], pytest.param(FAMILIES[1], marks=pytest.mark.slow)])
def test_a_run_resumes_to_the_byte_draws_and_is_loaded_by_diffusers(start, control_run, name):
    values = control_run(name, use_ema=True)
    shown = {
        "validation_disable": False,
        "validation_prompt": "a red circle",
        "validation_resolution": "32x32,48x32",
        "validation_num_inference_steps": 2,
    }
    straight = start(values, "straight")
    straight.session.train(4)
    first = start(values | shown)
    first.session.train(2)
    first.session.save_checkpoint()
    first.session.train(3)  # lost with the process
    last = start(values | shown)
    report = last.session.validate()
    assert report["error"] is None
    assert [size_of(image) for image in report["images"]] == [(32, 32), (32, 32), (48, 32), (48, 32)]
    last.session.train(4)
    for run in (straight, last):
        run.session.save_release()
    assert sha256_of(straight.output / WEIGHTS) == sha256_of(last.output / WEIGHTS)
    assert (last.output / "checkpoint-2/controlnet_ema/config.json").is_file()
    loaded = ControlNetModel.from_pretrained(last.output / "controlnet")
    with last.session._trainer.shown_weights():
        for (key, one), other in zip(
            loaded.named_parameters(), last.session._trainer.model.controlnet.parameters(), strict=True
        ):
            assert torch.equal(one, other), key


def test_control_pictures_are_kept_as_pixels_and_found_again(start, control_run):
    run = start(control_run("sd1x"))
    report = run.session.cache_latents()
    assert report["hits"] == report["total"] > 16
    batch = run.session._library.open_feed(0).batch(0)
    control = batch.text["reference_control"]
    assert control.shape == (2, 3, 32, 32)
    assert set(control.unique().tolist()) == {0.0, 1.0}


def test_training_starts_from_given_weights(configure, models, tmp_path):
    unet = UNet2DConditionModel.from_pretrained(models["sd1x"], subfolder="unet")
    torch.manual_seed(3)
    given = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 32, 96))
    with torch.no_grad():
        given.controlnet_mid_block.bias.fill_(0.5)
    given.save_pretrained(tmp_path / "given")
    config = configure(model_family="sd1x", controlnet=True, controlnet_model_name_or_path=str(tmp_path / "given"))
    model = open_family("sd1x")(models["sd1x"], config).load_model(torch.float32, CPU)
    assert (model.controlnet.controlnet_mid_block.bias == 0.5).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_it_learns_to_hold_on_to_its_picture(configure, models, name):
    """The picture to draw is as bright as its control: told of another one, the trained model is further away."""
    torch.manual_seed(0)  # the control starts with random numbers too
    config = configure(model_family=name, controlnet=True)
    family = open_family(name)(models[name], config)
    model = family.load_model(torch.float32, CPU).train()
    part = attach(model, config, family, resolve_precision(config, CPU))
    row = family.load_text_encoder(torch.float32, CPU).encode(["copy it"])[0]
    optimizer = torch.optim.AdamW(part.parameters(), lr=3e-3)
    generator, schedule = torch.Generator().manual_seed(0), family.noise_schedule()

    def loss_after(brightness, told, generator):
        latents = brightness[:, None, None, None].expand(-1, 4, 8, 8) * 2
        pictures = told[:, None, None, None].expand(-1, 3, 32, 32)
        text = family.collate_text([family.add_references(row, [one]) for one in pictures])
        return compute_loss(family, model, schedule, latents, text, generator, config)

    for _ in range(450):
        brightness = torch.rand(16, generator=generator) * 2 - 1
        loss_after(brightness, brightness, generator).backward()
        optimizer.step()
        optimizer.zero_grad()
    # With the same noise, picture by picture: most of a loss is what the noisy latents themselves leave open.
    better = 0
    with torch.no_grad():
        for seed, one in enumerate(torch.rand(64, 1, generator=generator) * 2 - 1):
            told, misled = (loss_after(one, each, torch.Generator().manual_seed(seed)) for each in (one, -one))
            better += bool(told < misled)
    assert better >= 48  # of 64; by chance once in thirty thousand times


def size_of(path):
    with Image.open(path) as image:
        return image.size


def faults_of(values):
    return {(one.check, one.message) for one in inspect_run(load(values=values, environ={})) if one.level == "error"}


@pytest.mark.parametrize(
    ("options", "check", "words"),
    [
        ({"model_family": "pixart_sigma"}, "controlnet", "no ControlNet can be trained for pixart_sigma"),
        ({"model_type": "lora"}, "controlnet", "trained whole"),
        ({"controlnet": False}, "conditioning_type", "train a ControlNet"),
    ],
)
def test_what_cannot_be_trained_is_said_before(control_run, tiny_model, options, check, words):
    values = control_run("sd1x") | options
    if "model_family" in options:
        values["pretrained_model_name_or_path"] = str(tiny_model)
    assert faults_of(control_run("sd1x")) == set()
    assert [message for name, message in faults_of(values) if name == check and words in message]


def test_a_controlnet_without_its_pictures_is_refused(control_run):
    values = control_run("sd1x")
    dataloader = Path(values["data_backend_config"])
    entries = json.loads(dataloader.read_text())
    del entries[0]["conditioning_data"]
    dataloader.write_text(json.dumps(entries[:-1]))
    assert [message for name, message in faults_of(values) if name == "controlnet" and "controlnet alone" in message]
