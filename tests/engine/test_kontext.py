"""Flux Kontext on pairs: what is trained, cached, drawn and refused, from the dataloader file to the weights."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from flowtuner.engine.diffusion import compute_loss
from flowtuner.engine.families import open_family
from flowtuner.engine.preflight import inspect_run
from flowtuner.options import load
from tests.conftest import draw_pictures

torch.set_num_threads(1)

LORA = {"model_type": "lora", "lora_rank": 4, "lora_dropout": 0.1}


@pytest.fixture(scope="module")
def tiny_kontext(tmp_path_factory) -> Path:
    return open_family("flux").tiny(tmp_path_factory.mktemp("models") / "kontext", kontext=True, layers=1)


@pytest.fixture
def pair_run(tmp_path, tiny_run, tiny_kontext, pictures) -> dict:
    """Sixteen pictures with a strict reference each and a loose one of another size."""
    for number, path in enumerate(sorted(draw_pictures(tmp_path / "grey", 16).iterdir())):
        with Image.open(path) as picture:
            grey = picture.convert("L")
        grey.save(path)
        loose = tmp_path / "loose" / path.name
        loose.parent.mkdir(exist_ok=True)
        Image.new("RGB", (48, 32), (number * 10, 0, 90)).save(loose)
    dataloader = Path(tiny_run["data_backend_config"])
    entries = json.loads(dataloader.read_text())
    entries[0] |= {"conditioning_data": ["grey", "loose"], "crop": True}
    for name, kind in (("grey", "reference_strict"), ("loose", "reference_loose")):
        entries.append(
            {
                "id": name,
                "dataset_type": "conditioning",
                "conditioning_type": kind,
                "instance_data_dir": str(tmp_path / name),
                "resolution": 32,
                "resolution_type": "pixel",
            }
        )
    dataloader.write_text(json.dumps(entries))
    kontext = {"model_family": "flux", "model_flavour": "kontext", "pretrained_model_name_or_path": str(tiny_kontext)}
    return tiny_run | kontext | LORA | {"max_train_steps": 4, "caption_dropout_probability": 0.3}


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["combined", "random"])
def test_pairs_resume_to_the_byte(start, pair_run, sampling):
    values = pair_run | {"conditioning_multidataset_sampling": sampling}
    straight = start(values, "straight")
    straight.session.train(4)
    first = start(values, "resumed")
    first.session.train(1)
    first.session.save_checkpoint()
    first.session.train(2)  # lost with the process
    second = start(values, "resumed")
    second.session.train(4)
    assert second.release() == straight.release()
    assert second.losses() == {step: loss for step, loss in straight.losses().items() if step > 1}


@pytest.mark.slow
def test_references_are_cached_once_and_decide_what_is_learned(start, pair_run, tmp_path):
    pair_run["conditioning_multidataset_sampling"] = "combined"
    run = start(pair_run, "first")
    assert run.session.cache_latents() | {"seconds": 0} == {
        "total": 48,
        "hits": 48,
        "encoded": 0,
        "seconds": 0,
        "quarantined": [],
    }
    run.session.train(2)
    run.session.save_checkpoint()
    for path in (tmp_path / "grey").iterdir():
        Image.new("RGB", (32, 32), "white").save(path)
    changed = start(pair_run, "first")
    assert "the data set changed" in changed.warnings()[-1]
    other = start(pair_run, "second")
    other.session.train(2)
    assert other.losses() != run.losses()


def test_validation_draws_after_references_and_disturbs_nothing(start, pair_run):
    without = start(pair_run, "without")
    without.session.train(2)
    shown = {
        "validation_disable": False,
        "validation_prompt": "a red circle",
        "validation_resolution": "32x32,32x48",
        "validation_num_inference_steps": 2,
        "validation_guidance": 2.5,
    }
    watched = start(pair_run | shown, "with")
    for step in (1, 2):
        watched.session.train(step)
        report = watched.session.validate()
        assert report["error"] is None
        assert [size_of(image) for image in report["images"]] == [(32, 32)] * 2 + [(32, 48)] * 2
    assert watched.release() == without.release()


def test_a_pair_that_is_not_whole_is_left_out_of_the_run(start, pair_run, tmp_path):
    gone = next(iter((tmp_path / "grey").iterdir()))
    gone.unlink()
    run = start(pair_run, "run")
    ((path, reason),) = run.session.cache_latents()["quarantined"]
    assert Path(path).name == gone.name
    assert "grey holds no" in reason


@pytest.mark.slow
def test_the_model_learns_to_look_at_its_reference(tiny_kontext, configure):
    """The picture to draw is its reference: told of another one, a trained model is further from the answer."""
    options = {"model_family": "flux", "model_type": "full", "learning_rate": 2e-3, "flow_schedule_shift": 1.0}
    config = configure(**options, flow_use_uniform_schedule=True)
    family = open_family("flux")(tiny_kontext, config)
    model = family.load_model(torch.float32, torch.device("cpu")).train()
    row = family.load_text_encoder(torch.float32, torch.device("cpu")).encode(["copy it"])[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    generator, schedule = torch.Generator().manual_seed(0), family.noise_schedule()

    def loss_after(latents, references):
        text = family.collate_text([family.add_references(row, [one]) for one in references])
        return compute_loss(family, model, schedule, latents, text, generator, config)

    for _ in range(120):
        latents = torch.randn(16, 16, 1, 1, generator=generator).expand(16, 16, 4, 4)
        loss_after(latents, latents).backward()
        optimizer.step()
        optimizer.zero_grad()
    latents = torch.randn(64, 16, 1, 1, generator=generator).expand(64, 16, 4, 4)
    with torch.no_grad():
        told, misled = loss_after(latents, latents).item(), loss_after(latents, latents.roll(1, 0)).item()
    assert told < 0.5 * misled


def size_of(path):
    with Image.open(path) as image:
        return image.size


def inspect(values):
    return {(one.level, one.check): one.message for one in inspect_run(load(values=values, environ={}))}


def test_pairs_pass_the_preflight_where_the_model_takes_them(pair_run, tiny_flux):
    assert inspect(pair_run | {"conditioning_multidataset_sampling": "combined"}) == {}
    plain = inspect(pair_run | {"model_flavour": "dev", "pretrained_model_name_or_path": str(tiny_flux)})
    assert "draws from text alone" in plain["error", "conditioning_data"]


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"conditioning_type": "mask"}, "conditioning_type"),
        ({"conditioning": {"type": "canny"}}, "conditioning"),
        ({"dataset_type": "eval", "conditioning_type": None}, "dataset_type"),
    ],
)
def test_other_kinds_of_conditioning_are_refused(pair_run, change, option):
    dataloader = Path(pair_run["data_backend_config"])
    entries = json.loads(dataloader.read_text())
    entries[-1] |= change
    dataloader.write_text(json.dumps(entries))
    assert "this version cannot do it" in inspect(pair_run)["error", option]
