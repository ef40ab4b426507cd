"""Full and LoRA parts: layout on disk, resume, release, and loading elsewhere."""

import json

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file

from flowtuner.engine.adapters import attach
from flowtuner.engine.adapters.lora import load_adapter
from flowtuner.engine.ema import Ema
from flowtuner.engine.families import open_family
from flowtuner.engine.families.parts.weights import read_metadata, write_weights
from flowtuner.engine.precision import resolve_precision
from flowtuner.errors import CheckpointError, ConfigError

CPU = torch.device("cpu")
LORA = "pytorch_lora_weights.safetensors"


@pytest.fixture
def build(configure, tiny_model):
    """A part attached to a fresh model, by options."""

    def make(**options):
        config = configure(**{"model_type": "lora", "lora_rank": 4} | options)
        family = open_family("pixart_sigma")(tiny_model, config)
        precision = resolve_precision(config, CPU)
        model = family.load_model(precision.base, CPU)
        return model, attach(model, config, family, precision)

    return make


def shake(part, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)


def answer(model):
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "hidden_states": torch.randn(1, 4, 8, 8, generator=generator),
        "encoder_hidden_states": torch.randn(1, 5, 64, generator=generator),
        "timestep": torch.tensor([300]),
    }
    with torch.no_grad():
        return model.eval()(**inputs).sample


def test_a_full_checkpoint_is_a_diffusers_folder(build, tmp_path):
    model, part = build(model_type="full")
    shake(part)
    part.save(tmp_path)
    loaded = PixArtTransformer2DModel.from_pretrained(tmp_path / "transformer")
    assert torch.equal(answer(loaded), answer(model))
    assert sorted(path.name for path in (tmp_path / "transformer").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]


@pytest.mark.parametrize(
    "options", [{}, {"use_dora": True}, {"lora_init_type": "pissa"}], ids=["lora", "dora", "pissa"]
)
def test_an_adapter_that_is_switched_off_leaves_the_untrained_model(build, options):
    model, part = build(**options)
    before = answer(model)
    shake(part)
    trained = answer(model)
    with part.switched_off():
        assert torch.equal(answer(model), before)
    assert torch.equal(answer(model), trained) and not torch.equal(trained, before)
    assert all(parameter.requires_grad for parameter in part.parameters())


def test_a_full_fine_tune_has_nothing_to_switch_off(build):
    _, part = build(model_type="full")
    with pytest.raises(ConfigError, match="is_regularisation_data"):
        part.switched_off()


def test_every_weight_of_a_full_fine_tune_is_trained(build):
    model, part = build(model_type="full")
    assert len(part.parameters()) == len(list(model.parameters()))
    assert all(parameter.requires_grad for parameter in part.parameters())


def test_only_the_matrices_of_a_lora_are_trained(build):
    model, part = build()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {id(parameter) for parameter in trained} == {id(parameter) for parameter in part.parameters()}
    assert len(part.parameters()) == 4 * 2 * 4 * 2  # layers, attentions, projections, matrices


def test_a_new_lora_changes_nothing_yet(build, tiny_model):
    base = PixArtTransformer2DModel.from_pretrained(tiny_model, subfolder="transformer")
    model, _ = build()
    torch.testing.assert_close(answer(model), answer(base), atol=1e-6, rtol=1e-5)


def test_the_same_seed_starts_the_same_lora(build):
    states = []
    for _ in range(2):
        torch.manual_seed(11)
        states.append(build()[1].state())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("use_dora", [False, True])
def test_a_saved_lora_loads_onto_a_fresh_diffusers_model(build, tiny_model, tmp_path, use_dora):
    model, part = build(lora_alpha=2.0, use_dora=use_dora, lora_dropout=0.5)
    shake(part)
    part.save(tmp_path)
    base = PixArtTransformer2DModel.from_pretrained(tiny_model, subfolder="transformer")
    loaded = load_adapter(base, tmp_path / LORA)
    torch.testing.assert_close(answer(loaded), answer(model), atol=1e-6, rtol=1e-5)


def test_a_saved_lora_loads_with_peft_alone(build, tiny_model, tmp_path):
    """The way the model card documents, for people who do not have Flowtuner."""
    model, part = build(lora_alpha=8.0)
    shake(part)
    part.save(tmp_path)

    transformer = PixArtTransformer2DModel.from_pretrained(tiny_model, subfolder="transformer")
    settings = {
        name.removeprefix("transformer."): value
        for name, value in json.loads(read_metadata(tmp_path / LORA)["lora_adapter_metadata"]).items()
    }
    inject_adapter_in_model(LoraConfig(**settings), transformer)
    weights = {name.removeprefix("transformer."): tensor for name, tensor in load_file(tmp_path / LORA).items()}
    result = set_peft_model_state_dict(transformer, weights)
    assert not result.unexpected_keys
    torch.testing.assert_close(answer(transformer), answer(model), atol=1e-6, rtol=1e-5)


def test_init_lora_starts_from_a_file_or_folder(build, tmp_path):
    _, part = build()
    shake(part)
    part.save(tmp_path)
    for source in (tmp_path, tmp_path / LORA):
        _, started = build(init_lora=str(source))
        assert all(torch.equal(part.state()[name], tensor) for name, tensor in started.state().items())


@pytest.mark.parametrize(
    ("options", "words"), [({"init_lora": "/nowhere"}, "init_lora"), ({"lora_rank": 8}, "another shape")]
)
def test_an_adapter_that_does_not_fit_is_refused(build, tmp_path, options, words):
    _, part = build()
    part.save(tmp_path)
    with pytest.raises(CheckpointError, match=words):
        build(**{"init_lora": str(tmp_path)} | options)


def test_a_damaged_adapter_is_refused(build, tmp_path):
    _, part = build()
    (tmp_path / LORA).write_bytes(b"not a safetensors file")
    with pytest.raises(CheckpointError, match="cannot be read"):
        part.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lora_target_modules": ["nothing_like_it"]}, "lora_target_modules"),
        ({"lora_init_type": "loftq"}, "base weights"),
        ({"lora_init_type": "pissa", "use_dora": True}, "DoRA"),
        ({"lora_type": "lycoris", "lora_format": "comfyui"}, "lora_format"),
    ],
)
def test_options_that_cannot_work_are_refused(build, options, words):
    with pytest.raises(ConfigError, match=words):
        build(**options)


@pytest.mark.parametrize("start", ["olora", "pissa"])
def test_starts_that_take_from_the_base_are_saved_for_the_whole_base(build, tiny_model, tmp_path, start):
    model, part = build(lora_init_type=start, lora_alpha=8.0)
    base = PixArtTransformer2DModel.from_pretrained(tiny_model, subfolder="transformer")
    torch.testing.assert_close(answer(model), answer(base), atol=1e-5, rtol=1e-4)
    shake(part)
    part.save(tmp_path)
    loaded = load_adapter(base, tmp_path / LORA)
    torch.testing.assert_close(answer(loaded), answer(model), atol=1e-5, rtol=1e-4)
    again, other = build(lora_init_type=start, lora_alpha=8.0)
    other.load(tmp_path)
    assert torch.equal(answer(again), answer(model))


@pytest.mark.parametrize("use_dora", [False, True])
def test_comfyuis_names_go_both_ways(build, tiny_model, tmp_path, use_dora):
    model, part = build(lora_format="comfyui", lora_alpha=2.0, use_dora=use_dora)
    shake(part)
    part.save(tmp_path)
    tensors = load_file(tmp_path / LORA)
    layer = "diffusion_model.transformer_blocks.0.attn1.to_q"
    assert all(name.startswith("diffusion_model.") for name in tensors)
    assert tensors[f"{layer}.alpha"].item() == 2.0
    assert tensors[f"{layer}.lora_A.weight"].shape == (4, 128)
    assert (f"{layer}.dora_scale" in tensors) is use_dora

    base = PixArtTransformer2DModel.from_pretrained(tiny_model, subfolder="transformer")
    torch.testing.assert_close(answer(load_adapter(base, tmp_path / LORA)), answer(model), atol=1e-6, rtol=1e-5)
    _, started = build(init_lora=str(tmp_path), lora_alpha=2.0, use_dora=use_dora)
    assert all(torch.equal(tensor, started.state()[name]) for name, tensor in part.state().items())
    _, resumed = build(lora_format="comfyui", lora_alpha=2.0, use_dora=use_dora)
    resumed.load(tmp_path)
    assert all(torch.equal(tensor, resumed.state()[name]) for name, tensor in part.state().items())


def test_a_file_of_comfyui_without_metadata_is_loaded(build, tiny_model, tmp_path):
    model, part = build(lora_format="comfyui", lora_alpha=2.0)
    shake(part)
    part.save(tmp_path)
    write_weights(tmp_path / "bare.safetensors", load_file(tmp_path / LORA), {})
    base = PixArtTransformer2DModel.from_pretrained(tiny_model, subfolder="transformer")
    loaded = load_adapter(base, tmp_path / "bare.safetensors")
    torch.testing.assert_close(answer(loaded), answer(model), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("alpha", [2.0, 16.0])
def test_init_lora_starts_from_the_same_pictures_whatever_alpha_says(build, tmp_path, alpha):
    model, part = build(lora_alpha=8.0)
    shake(part)
    part.save(tmp_path)
    started, _ = build(lora_alpha=alpha, init_lora=str(tmp_path))
    torch.testing.assert_close(answer(started), answer(model), atol=1e-6, rtol=1e-5)


def test_a_file_says_what_it_is(build, tmp_path):
    said = {
        "tracker_run_name": "night bench",
        "modelspec_comment": ["one", "two"],
        "instance_prompt": "sks",
        "resolution": 0.25,
        "resolution_type": "area",
    }
    _, part = build(**said)
    part.save(tmp_path)
    about = {name: text for name, text in read_metadata(tmp_path / LORA).items() if name.startswith("modelspec.")}
    assert about == {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "pixart-sigma/lora",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "modelspec.title": "night bench",
        "modelspec.description": "lora on pixart",
        "modelspec.comment": "one, two",
        "modelspec.resolution": "500x500",
        "modelspec.prediction_type": "epsilon",
        "modelspec.trigger_phrase": "sks",
    }


def test_chosen_target_modules(build):
    _, part = build(lora_target_modules=["to_q"])
    assert all(".to_q.lora_" in name for name in part.state())


def test_bfloat16_bases_and_adapters(build):
    model, part = build(base_model_precision="bf16")
    assert {parameter.dtype for parameter in part.parameters()} == {torch.float32}
    assert model.proj_out.weight.dtype is torch.bfloat16


def test_gradient_checkpointing_gives_the_same_gradients(build):
    gradients = []
    for is_on in (False, True):
        torch.manual_seed(0)
        model, part = build(gradient_checkpointing=is_on, lora_dropout=0.0)
        assert model.is_gradient_checkpointing is is_on
        shake(part)
        model.train()
        model(torch.ones(1, 4, 8, 8), torch.ones(1, 3, 64), torch.tensor([5])).sample.square().mean().backward()
        gradients.append([parameter.grad for parameter in part.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("model_type", "ema", "release"),
    [
        ("full", "transformer_ema/diffusion_pytorch_model.safetensors", "pipeline/model_index.json"),
        ("lora", f"ema/{LORA}", LORA),
    ],
)
def test_ema_and_release_have_their_places(build, configure, tmp_path, model_type, ema, release):
    _, part = build(model_type=model_type)
    average = Ema(part.parameters(), configure())
    with average.swapped():
        part.save_ema(tmp_path)
    part.save_release(tmp_path)
    assert (tmp_path / ema).is_file()
    assert (tmp_path / release).is_file()
    assert not list(tmp_path.glob("*-tmp"))


def test_given_tensors_are_saved_in_place_of_the_present_ones(build, tmp_path):
    _, part = build()
    zeros = {name: torch.zeros_like(tensor) for name, tensor in part.state().items()}
    part.save(tmp_path, zeros)
    assert not any(tensor.any() for tensor in load_file(tmp_path / LORA).values())


def test_metadata_is_written_in_one_order(tmp_path):
    """The library orders metadata by a random hash; twenty files would hardly agree by luck."""
    about = {name: name * 3 for name in ["zebra", "fox", "owl", "ant", "bee", "cat", "dog"]}
    for number in range(20):
        write_weights(tmp_path / str(number), {"b": torch.zeros(3), "a": torch.ones(2)}, about)
    assert len({(tmp_path / str(number)).read_bytes() for number in range(20)}) == 1
    assert read_metadata(tmp_path / "0") == about
    assert load_file(tmp_path / "0")["a"].tolist() == [1.0, 1.0]
