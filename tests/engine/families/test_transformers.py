"""What is special about SD 3, Sana, Qwen-Image and Z-Image: text that may be trimmed, parts that may be missing."""

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from flowtuner.engine.families import open_family
from flowtuner.engine.families.parts.instruction import read_instruction

CPU = torch.device("cpu")
PROMPTS = ["a red circle", "zorp, a large yellow triangle on a black background"]

WITHOUT_T5 = {"text_encoder_3": None, "tokenizer_3": None}
"""What diffusers wants to be told when it loads a folder that has no T5."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    built = {}

    def build(name, **variant):
        key = name, *variant.items()
        if key not in built:
            built[key] = open_family(name).tiny(tmp_path_factory.mktemp(name) / "model", **variant)
        return built[key]

    return build


@pytest.fixture
def open_tiny(tiny, configure):
    def open_one(name, variant=(), **options):
        return open_family(name)(tiny(name, **dict(variant)), configure(model_family=name, **options))

    return open_one


def noise_for(family, *sizes):
    channels = family.load_vae(torch.float32, CPU).encode(torch.zeros(1, 3, 32, 32)).shape[1]
    return torch.randn(2, channels, *sizes, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "mask"), [("sana", "prompt_attention_mask"), ("qwen_image", "prompt_embeds_mask")])
def test_trimming_is_exact_against_padding_to_the_limit(open_tiny, name, mask):
    family = open_tiny(name)
    model, noisy, steps = family.load_model(torch.float32, CPU), noise_for(family, 8, 8), torch.tensor([10.0, 900.0])
    trimmed = family.collate_text(family.load_text_encoder(torch.float32, CPU).encode(PROMPTS))
    surplus = 300 - trimmed["prompt_embeds"].shape[1]
    padded = {
        "prompt_embeds": torch.nn.functional.pad(trimmed["prompt_embeds"], (0, 0, 0, surplus), value=7.0),
        mask: torch.nn.functional.pad(trimmed[mask], (0, surplus)),
    }
    with torch.no_grad():
        one, other = (family.predict(model, noisy, steps, text) for text in (trimmed, padded))
    assert (one - other).abs().max() < 1e-5


def test_qwen_prompts_of_one_length_need_no_mask(open_tiny):
    rows = open_tiny("qwen_image").load_text_encoder(torch.float32, CPU).encode([PROMPTS[0]] * 2)
    assert set(open_tiny("qwen_image").collate_text(rows)) == {"prompt_embeds"}


def test_sana_scales_time_as_its_model_says(tiny, open_tiny):
    family = open_tiny("sana", {"timestep_scale": 0.001})
    model, noisy = family.load_model(torch.float32, CPU), noise_for(family, 8, 8)
    text = family.collate_text(family.load_text_encoder(torch.float32, CPU).encode(PROMPTS))
    seen = []
    model.register_forward_pre_hook(lambda module, given, named: seen.append(named["timestep"]), with_kwargs=True)
    with torch.no_grad():
        family.predict(model, noisy, torch.tensor([250.0, 1000.0]), text)
    torch.testing.assert_close(seen[0], torch.tensor([0.25, 1.0]))


def test_sanas_empty_prompt_stands_without_the_instruction(open_tiny):
    encoder = open_tiny("sana").load_text_encoder(torch.float32, CPU)
    assert encoder.frame("") == ""
    assert encoder.frame(" A Cat") == read_instruction() + "a cat"
    assert encoder.count_tokens(["", "a"]) == [1, 2]


@pytest.mark.parametrize("has_t5", [True, False])
def test_sd3_reads_its_text_as_the_pipeline_does(open_tiny, tiny, has_t5):
    variant = {} if has_t5 else {"t5": False}
    family = open_tiny("sd3", variant)
    prompts = [PROMPTS[0], PROMPTS[1] * 9]
    ours = family.collate_text(family.load_text_encoder(torch.float32, CPU).encode(prompts))
    pipeline = StableDiffusion3Pipeline.from_pretrained(tiny("sd3", **variant), **({} if has_t5 else WITHOUT_T5))
    theirs = pipeline.encode_prompt(
        prompts, None, None, do_classifier_free_guidance=False, max_sequence_length=family.max_text_tokens
    )
    torch.testing.assert_close(ours["prompt_embeds"], theirs[0])
    torch.testing.assert_close(ours["pooled_prompt_embeds"], theirs[2])


def test_sd3_without_t5_is_a_whole_model(tiny, open_tiny, tmp_path):
    folder = tiny("sd3", t5=False)
    family = open_tiny("sd3", {"t5": False})
    assert family.check_source(folder) == []
    assert not (folder / "text_encoder_3").exists()
    family.save_pipeline(family.load_model(torch.float32, CPU), tmp_path / "saved")
    assert family.check_source(tmp_path / "saved") == []
    assert StableDiffusion3Pipeline.from_pretrained(tmp_path / "saved", **WITHOUT_T5).text_encoder_3 is None


def test_an_optional_part_that_is_listed_has_to_be_there(tiny, tmp_path):
    folder = tiny("sd3")
    for path in folder.iterdir():
        if path.name != "text_encoder_3":
            (tmp_path / path.name).symlink_to(path)
    (fault,) = open_family("sd3").check_source(tmp_path)
    assert "text_encoder_3" in fault


@pytest.mark.parametrize(("name", "token"), [("sd3", 16), ("z_image", 16), ("qwen_image", 16), ("sana", 32)])
def test_sizes_that_cannot_be_cut_into_tokens_are_told_first(configure, name, token):
    def told(alignment, **options):
        config = configure(model_family=name, aspect_bucket_alignment=alignment, **options)
        return [fault.option for fault in open_family(name).find_limits(config)]

    assert told(token) == told(64) == []
    assert told(token // 2) == ["aspect_bucket_alignment"]
