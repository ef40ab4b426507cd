"""What is special about SD 1.x and SDXL: CLIP text as their pipelines read it, sizes and crops."""

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from flowtuner.engine.data.sample import Plan
from flowtuner.engine.diffusion import compute_loss
from flowtuner.engine.families import open_family
from flowtuner.engine.preflight import inspect_run
from flowtuner.errors import ConfigError
from flowtuner.options import load

CPU = torch.device("cpu")
PIPELINES = {"sd1x": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
PROMPTS = ["a red circle", "zorp, a large yellow triangle " * 9]


@pytest.fixture(scope="module", params=PIPELINES)
def tiny(request, tmp_path_factory):
    return request.param, open_family(request.param).tiny(tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="module")
def tiny_sdxl(tmp_path_factory):
    return open_family("sdxl").tiny(tmp_path_factory.mktemp("sdxl") / "model", prediction_type="v_prediction")


@pytest.fixture
def open_tiny(tiny, configure):
    name, path = tiny
    return lambda **options: open_family(name)(path, configure(model_family=name, **options))


@pytest.mark.parametrize("skip", [None, 1])
def test_text_is_encoded_as_the_pipeline_does(tiny, open_tiny, skip):
    name, path = tiny
    family = open_tiny(clip_skip=skip)
    ours = family.collate_text(family.load_text_encoder(torch.float32, CPU).encode(PROMPTS))
    pipeline = PIPELINES[name].from_pretrained(path)
    if skip and name == "sd1x":  # the pipeline looks for the norm where an older transformers had it
        layers = pipeline.text_encoder(token_ids(pipeline), output_hidden_states=True).hidden_states
        theirs = [pipeline.text_encoder.final_layer_norm(layers[-2])]
    else:
        theirs = pipeline.encode_prompt(
            prompt=PROMPTS, device=CPU, num_images_per_prompt=1, do_classifier_free_guidance=False, clip_skip=skip
        )
    torch.testing.assert_close(ours["prompt_embeds"], theirs[0])
    if name == "sdxl":
        torch.testing.assert_close(ours["pooled_prompt_embeds"], theirs[2])


def token_ids(pipeline):
    return pipeline.tokenizer(
        PROMPTS, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    ).input_ids


def test_more_layers_cannot_be_left_out_than_there_are(open_tiny):
    with pytest.raises(ConfigError, match=r"clip_skip.*2 layers only"):
        open_tiny(clip_skip=7).load_text_encoder(torch.float32, CPU)


def test_sdxl_is_told_size_and_crop(tiny_sdxl, configure):
    family = open_family("sdxl")(tiny_sdxl, configure(model_family="sdxl"))
    whole = family.describe_picture(Plan(1, (48, 64), (0, 0, 48, 64)))
    cropped = family.describe_picture(Plan(1, (1011, 700), (100, 30, 640, 600)))
    assert whole["time_ids"].tolist() == [64, 48, 0, 0, 64, 48]
    assert cropped["time_ids"].tolist() == [700, 1011, 30, 100, 600, 640]
    rows = family.load_text_encoder(torch.float32, CPU).encode(["a red circle"])
    model = family.load_model(torch.float32, CPU)
    noisy = torch.randn(1, 4, 8, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        told, other, untold = (
            family.predict(model, noisy, torch.tensor([500]), family.collate_text([rows[0] | known]))
            for known in (whole, cropped, {})
        )
    assert torch.equal(told, untold)
    assert not torch.equal(told, other)


def test_v_prediction_is_what_the_sources_scheduler_says(tiny_sdxl, configure):
    family = open_family("sdxl")(tiny_sdxl, configure(model_family="sdxl"))
    schedule = family.noise_schedule()
    assert schedule.prediction == "v_prediction"
    rows = family.load_text_encoder(torch.float32, CPU).encode(["a red circle"])
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    model = family.load_model(torch.float32, CPU)
    generator = torch.Generator().manual_seed(1)
    loss = compute_loss(family, model, schedule, latents, family.collate_text(rows), generator, family.config)
    assert torch.isfinite(loss)


@pytest.mark.slow
def test_another_clip_skip_is_another_cache(start, tiny_run, tiny_sdxl):
    values = tiny_run | {"model_family": "sdxl", "pretrained_model_name_or_path": str(tiny_sdxl)}
    plain = start(values, "cached").session._library.read_text("")
    skipped = start(values | {"clip_skip": 1}, "cached").session._library.read_text("")
    assert not torch.equal(plain["prompt_embeds"], skipped["prompt_embeds"])


def test_what_clip_cannot_do_is_said_before(tiny_run, tiny):
    name, path = tiny
    values = tiny_run | {"model_family": name, "pretrained_model_name_or_path": str(path)}
    findings = inspect_run(load(values=values | {"tokenizer_max_length": 200, "clip_skip": 1}, environ={}))
    assert [finding.check for finding in findings] == ["tokenizer_max_length"]
    (other,) = inspect_run(load(values=tiny_run | {"clip_skip": 1}, environ={}))
    assert (other.level, other.check) == ("warning", "clip_skip")
