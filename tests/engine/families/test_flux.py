"""What is special about Flux: tokens and positions, text with its padding, guidance, LoRA that diffusers loads."""

import itertools

import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline, FluxPipeline
from PIL import Image

from flowtuner.engine.adapters import attach
from flowtuner.engine.families import choose_source, open_family
from flowtuner.engine.families.parts import flux_tokens
from flowtuner.engine.precision import resolve_precision
from flowtuner.errors import DataError, ModelError

CPU = torch.device("cpu")
Flux = open_family("flux")


@pytest.fixture
def open_flux(tiny_flux, configure):
    return lambda **options: Flux(tiny_flux, configure(model_family="flux", **options))


@pytest.fixture
def text(open_flux):
    family = open_flux()
    return family.collate_text(family.load_text_encoder(torch.float32, CPU).encode(["a red circle", ""]))


def latents(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_model_has_about_two_million_parameters(open_flux):
    model = open_flux().load_model(torch.float32, CPU)
    assert 1.5e6 < sum(parameter.numel() for parameter in model.parameters()) < 2.5e6


def test_tokens_and_positions_are_those_of_the_pipeline():
    picture = latents(2, 16, 6, 8)
    packed = flux_tokens.pack(picture)
    assert torch.equal(packed, FluxPipeline._pack_latents(picture, 2, 16, 6, 8))
    assert torch.equal(flux_tokens.unpack(packed, 6, 8), picture)
    theirs = FluxPipeline._prepare_latent_image_ids(2, 3, 4, CPU, torch.float32)
    assert torch.equal(flux_tokens.position_ids(6, 8, CPU), theirs)


def test_latents_that_cannot_be_cut_two_by_two_say_what_to_set():
    with pytest.raises(DataError, match=r"5x6.*aspect_bucket_alignment"):
        flux_tokens.pack(latents(1, 16, 6, 5))


def test_text_is_encoded_as_the_pipeline_does(open_flux, tiny_flux):
    prompts = ["a Red circle", "zorp, a large yellow triangle " * 9]
    family = open_flux()
    ours = family.collate_text(family.load_text_encoder(torch.float32, CPU).encode(prompts))
    pipeline = FluxPipeline.from_pretrained(tiny_flux)
    embeds, pooled, _ = pipeline.encode_prompt(prompts, prompts, max_sequence_length=family.max_text_tokens)
    torch.testing.assert_close(ours["prompt_embeds"], embeds)
    torch.testing.assert_close(ours["pooled_prompt_embeds"], pooled)


def test_how_many_text_tokens(tmp_path, tiny_flux, configure):
    assert Flux("owner/name", configure()).max_text_tokens == 512
    assert Flux("owner/name", configure(model_flavour="schnell")).max_text_tokens == 256
    assert Flux("owner/name", configure(tokenizer_max_length=77)).max_text_tokens == 77
    assert Flux(tiny_flux, configure()).max_text_tokens == 32


def test_guidance_is_fed_in_constant_or_drawn(open_flux, text):
    answers = {}
    for value in (1.0, 4.0):
        family = open_flux(flux_guidance_value=value)
        model = family.load_model(torch.float32, CPU)
        with torch.no_grad():
            answers[value] = family.predict(model, latents(2, 16, 4, 4), torch.tensor([300.0, 300.0]), text)
        assert family.draw_inputs(2, torch.Generator()) == {}
    assert not torch.allclose(answers[1.0], answers[4.0])
    drawn = open_flux(flux_guidance_mode="random-range", flux_guidance_min=2, flux_guidance_max=3).draw_inputs(
        500, torch.Generator().manual_seed(1)
    )["guidance"]
    assert 2 <= drawn.min() < 2.1
    assert 2.9 < drawn.max() <= 3


def test_a_model_without_guidance_trains_and_renders(tmp_path, configure):
    family = Flux(Flux.tiny(tmp_path / "schnell", guidance_embeds=False, layers=1), configure(model_flavour="schnell"))
    model, vae = family.load_model(torch.float32, CPU), family.load_vae(torch.float32, CPU)
    row, other = family.load_text_encoder(torch.float32, CPU).encode(["a red circle", ""])
    noisy = latents(1, 16, 4, 4)
    assert family.predict(model, noisy, torch.tensor([500.0]), family.collate_text([row])).shape == noisy.shape
    size = {"width": 16, "height": 16, "steps": 2, "guidance": 0.0}
    assert family.render(model, vae, row, other, seed=0, **size).size == (16, 16)


def test_real_guidance_uses_the_negative_prompt(open_flux):
    size = {"width": 16, "height": 16, "steps": 2, "guidance": 2.0, "seed": 0}
    pictures = []
    for real in (1.0, 4.0):
        family = open_flux(validation_guidance_real=real)
        model, vae = family.load_model(torch.float32, CPU), family.load_vae(torch.float32, CPU)
        row, other, third = family.load_text_encoder(torch.float32, CPU).encode(["a red circle", "", "a blue square"])
        pictures.append([family.render(model, vae, row, bad, **size).tobytes() for bad in (other, third)])
    assert pictures[0][0] == pictures[0][1]
    assert pictures[1][0] != pictures[1][1]


@pytest.mark.parametrize(("target", "count"), [("all", 22), ("all+ffs", 35), ("context", 8), ("context+ffs", 12)])
def test_lora_targets_and_the_file_that_diffusers_loads(open_flux, tiny_flux, tmp_path, text, target, count):
    family = open_flux(model_type="lora", lora_rank=4, lora_dropout=0.0, flux_lora_target=target)
    model = family.load_model(torch.float32, CPU)
    part = attach(model, family.config, family, resolve_precision(family.config, CPU))
    assert len(part.parameters()) == 2 * count
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.copy_(latents(*parameter.shape) / 10)
    part.save(tmp_path)
    pipeline = FluxPipeline.from_pretrained(tiny_flux)
    noisy, steps = latents(2, 16, 4, 4), torch.tensor([100.0, 900.0])
    with torch.no_grad():
        before = family.predict(pipeline.transformer, noisy, steps, text)
        pipeline.load_lora_weights(tmp_path)
        after = family.predict(pipeline.transformer, noisy, steps, text)
        torch.testing.assert_close(after, family.predict(model, noisy, steps, text), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before, after, atol=1e-3)


@pytest.fixture(scope="module")
def kontext(tmp_path_factory):
    return Flux.tiny(tmp_path_factory.mktemp("kontext") / "model", kontext=True, layers=1)


def test_a_kontext_folder_is_known_by_its_index(tiny_flux, kontext, configure):
    assert Flux(kontext, configure()).takes_references
    assert Flux("owner/name", configure(model_flavour="kontext")).takes_references
    plain = Flux(tiny_flux, configure())
    assert not plain.takes_references
    with pytest.raises(ModelError, match="kontext"):
        plain.add_references({}, [latents(16, 4, 4)])


def test_references_change_the_answer_and_lie_side_by_side(kontext, configure, text):
    family = Flux(kontext, configure())
    model, noisy, steps = family.load_model(torch.float32, CPU), latents(1, 16, 4, 4), torch.tensor([500.0])
    row = {name: tensor[0] for name, tensor in text.items()}
    one, other, tall = latents(16, 4, 4), latents(16, 4, 4) + 1, latents(16, 8, 4)
    answers = []
    for references in ([one], [other], [one, other], [other, one, tall]):
        rows = family.collate_text([family.add_references(row, references)])
        assert len(rows["reference_ids"][0].unique(dim=0)) == rows["reference_tokens"].shape[1]
        assert not rows["reference_ids"].is_floating_point()  # bfloat16 cannot count beyond 256
        with torch.no_grad():
            answers.append(family.predict(model, noisy, steps, rows))
    assert all(answer.shape == noisy.shape for answer in answers)
    assert min((a - b).abs().max() for a, b in itertools.combinations(answers, 2)) > 1e-4


def test_pictures_are_drawn_after_references_as_the_pipeline_does(kontext, configure):
    family = Flux(kontext, configure())
    model, vae = family.load_model(torch.float32, CPU), family.load_vae(torch.float32, CPU)
    row = family.load_text_encoder(torch.float32, CPU).encode(["a red circle"])[0]
    source = Image.effect_mandelbrot((32, 16), (-2, -1, 1, 1), 20).convert("RGB")
    pixels = torch.from_numpy(np.array(source)).permute(2, 0, 1)[None] / 127.5 - 1
    edit = family.add_references(row, list(vae.encode(pixels)))
    size = {"width": 16, "height": 32, "steps": 2, "guidance": 2.5, "seed": 4}
    ours = family.render(model, vae, edit, row, **size)
    pipeline = FluxKontextPipeline.from_pretrained(kontext)
    theirs = pipeline(
        image=source,
        prompt="a red circle",
        width=16,
        height=32,
        num_inference_steps=2,
        guidance_scale=2.5,
        generator=torch.Generator().manual_seed(4),
        max_area=16 * 32,
        max_sequence_length=family.max_text_tokens,
        _auto_resize=False,
    ).images[0]
    difference = np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int))
    assert difference.max() <= 1
    assert ours.tobytes() != family.render(model, vae, row, row, **size).tobytes()


def test_sizes_and_ranges_that_cannot_work_are_told_first(tiny_flux, configure):
    def told(**options):
        return [fault.option for fault in Flux.find_limits(configure(**options))]

    assert told() == []
    assert told(aspect_bucket_alignment=8) == told(aspect_bucket_alignment=24) == ["aspect_bucket_alignment"]
    assert told(aspect_bucket_alignment=8, pretrained_model_name_or_path=str(tiny_flux)) == []  # its tokens are smaller
    assert told(flux_guidance_mode="random-range", flux_guidance_min=5) == ["flux_guidance_min"]


def test_sources(configure):
    assert choose_source(configure(model_family="flux")) == "black-forest-labs/FLUX.1-dev"
    assert choose_source(configure(model_family="flux", model_flavour="krea")) == "black-forest-labs/FLUX.1-Krea-dev"
