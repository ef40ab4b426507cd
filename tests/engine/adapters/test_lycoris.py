"""LyCORIS: every algorithm trains, is saved, comes back to the bit, and works with the library alone."""

import json

import pytest
import torch
from diffusers import PixArtTransformer2DModel

from flowtuner.engine.adapters import attach
from flowtuner.engine.adapters.lycoris import merge_adapter, open_adapter
from flowtuner.engine.ema import Ema
from flowtuner.engine.families import open_family
from flowtuner.engine.families.parts.weights import read_metadata
from flowtuner.engine.precision import resolve_precision
from flowtuner.engine.quantize import quantise
from flowtuner.errors import CheckpointError, ConfigError
from flowtuner.options.lycoris import ALGORITHMS, BUILT_IN

CPU = torch.device("cpu")
WEIGHTS = "pytorch_lora_weights.safetensors"
ATTENTION = {"target_module": ["Attention"]}
EXACT = {"atol": 2e-5, "rtol": 1e-4}


@pytest.fixture
def build(configure, tiny_model):
    """A network beside a fresh model, by options."""

    def make(settings=None, **options):
        config = configure(**{"model_type": "lora", "lora_type": "lycoris", "lycoris_config": settings} | options)
        family = open_family("pixart_sigma")(tiny_model, config)
        precision = resolve_precision(config, CPU)
        model = family.load_model(precision.base, CPU)
        return model, attach(model, config, family, precision)

    return make


@pytest.fixture
def plain(tiny_model):
    return lambda: PixArtTransformer2DModel.from_pretrained(tiny_model, subfolder="transformer")


def settings_for(algorithm, **more):
    least = {"algo": algorithm, "multiplier": 1.0, "linear_dim": 4, "linear_alpha": 2, "apply_preset": ATTENTION}
    return least | more


def learn(model, part, steps=3):
    optimizer = torch.optim.AdamW(part.parameters(), lr=1e-2)
    for _ in range(steps):
        answer(model).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def answer(model):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 8, 8, generator=generator)
    return model(latents, torch.randn(1, 5, 64, generator=generator), torch.tensor([300])).sample


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_algorithm_learns_is_saved_and_works_with_the_library_alone(build, plain, tmp_path, algorithm):
    model, part = build(settings_for(algorithm))
    before = answer(plain())
    torch.testing.assert_close(answer(model), before, **EXACT)
    learn(model, part)
    after = answer(model)
    assert after.square().mean() < before.square().mean()
    part.save(tmp_path)

    fresh = plain()
    network = open_adapter(fresh, tmp_path / WEIGHTS)
    torch.testing.assert_close(answer(fresh), after, **EXACT)
    network.restore()
    torch.testing.assert_close(answer(fresh), before, **EXACT)
    torch.testing.assert_close(answer(merge_adapter(plain(), tmp_path / WEIGHTS)), after, **EXACT)


@pytest.mark.parametrize(
    "settings",
    [*map(settings_for, ALGORITHMS), settings_for("lokr", use_scalar=True), settings_for("lokr", dora_wd=True)],
)
def test_a_checkpoint_brings_every_parameter_back_to_the_bit(build, tmp_path, settings):
    model, part = build(settings)
    learn(model, part)
    part.save(tmp_path)
    other_model, other = build(settings)
    other.load(tmp_path)
    assert all(torch.equal(tensor, other.state()[name]) for name, tensor in part.state().items())
    assert torch.equal(answer(model), answer(other_model))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_network_that_is_switched_off_leaves_the_untrained_model(build, plain, algorithm):
    model, part = build(settings_for(algorithm))
    learn(model, part)
    trained = answer(model)
    with part.switched_off():
        assert torch.equal(answer(model), answer(plain()))
    assert torch.equal(answer(model), trained)


def test_without_settings_lokr_of_factor_16_is_trained(build, tmp_path):
    _, part = build()
    part.save(tmp_path)
    attention = next(tensor for name, tensor in part.state().items() if name.endswith("attn1_to_q.lokr_w1"))
    feeding = next(tensor for name, tensor in part.state().items() if name.endswith("ff_net_2.lokr_w1"))
    assert (tuple(attention.shape), tuple(feeding.shape)) == ((8, 8), (8, 8))  # 128 = 8 x 16; of 128 x 512, 8 x 8
    assert json.loads((tmp_path / "lycoris_config.json").read_text()) == json.loads(json.dumps(dict(BUILT_IN)))
    about = read_metadata(tmp_path / WEIGHTS)
    assert json.loads(about["lycoris_config"])["algo"] == "lokr"
    assert about["modelspec.architecture"] == "pixart-sigma/lycoris"


def test_a_preset_chooses_layers_and_their_algorithms(build):
    preset = {
        "target_module": ["Attention", "FeedForward"],
        "module_algo_map": {"FeedForward": {"algo": "lora", "linear_dim": 2}},
        "exclude_name": [".*attn2.*"],
    }
    _, part = build(settings_for("lokr", apply_preset=preset))
    names = list(part.state())
    assert any(name.endswith("attn1_to_q.lokr_w1") for name in names)
    assert not [name for name in names if "attn2" in name]
    assert part.state()["lycoris_transformer_blocks_0_ff_net_2.lora_down.weight"].shape == (2, 512)


def test_one_networks_preset_does_not_reach_the_next(build):
    build(settings_for("lokr", apply_preset={"target_name": [".*to_q"], "lora_prefix": "mine"}))
    _, part = build(settings_for("lokr"))
    assert all(name.startswith("lycoris_") for name in part.state())
    assert any("to_out" in name for name in part.state())


def test_a_name_stands_for_the_classes_that_end_with_it(configure, tiny_flux):
    """Flux calls its attention FluxAttention; the built-in settings say Attention."""
    config = configure(model_family="flux", model_type="lora", lora_type="lycoris", lycoris_config=None)
    family = open_family("flux")(tiny_flux, config)
    part = attach(family.load_model(torch.float32, CPU), config, family, resolve_precision(config, CPU))
    assert any("single_transformer_blocks_0_attn_to_q" in name for name in part.state())
    assert any("transformer_blocks_0_ff_context" in name for name in part.state())


def test_a_preset_that_names_no_layer_is_refused_with_those_there_are(build):
    with pytest.raises(ConfigError, match=r"no layer of PixArtTransformer2DModel.*Attention"):
        build(settings_for("lokr", apply_preset={"target_module": ["Nothing"]}))


def test_small_updates_of_a_bfloat16_base_are_not_rounded_away(build):
    """A weight that is rebuilt in bfloat16 swallows a change of a hundred thousandth; one that is added does not."""
    model, part = build(settings_for("lokr"), base_model_precision="bf16")
    with torch.no_grad():
        for name, parameter in part._named.items():
            parameter.fill_(1e-5 if "w2_b" in name else 0.1)
        inputs = torch.ones(1, 128, dtype=torch.bfloat16)
        layer = model.transformer_blocks[0].attn1.to_q
        with torch.autocast("cpu", dtype=torch.bfloat16):
            change = layer._lycoris_wrappers[0].bypass_forward_diff(inputs)
    assert layer._lycoris_wrappers[0].bypass_mode is True
    assert change.abs().min() > 0


def test_init_lokr_norm_starts_beside_zero_as_the_layers_scatter(build, plain):
    torch.manual_seed(0)
    _, part = build(init_lokr_norm=1e-3)
    second = part.state()["lycoris_transformer_blocks_0_attn1_to_q.lokr_w2"]
    assert (part.state()["lycoris_transformer_blocks_0_attn1_to_q.lokr_w1"] == 1).all()
    own = plain().transformer_blocks[0].attn1.to_q.weight
    assert second.std() == pytest.approx(1e-3 * own.std().item(), rel=1e-3)


def test_init_lokr_norm_needs_whole_factors(build):
    with pytest.raises(ConfigError, match="full_matrix"):
        build(settings_for("loha"), init_lokr_norm=1e-3)


def test_init_lora_starts_from_a_file(build, tmp_path):
    model, part = build()
    learn(model, part)
    part.save(tmp_path)
    _, other = build(init_lora=str(tmp_path))
    assert all(torch.equal(tensor, other.state()[name]) for name, tensor in part.state().items())
    with pytest.raises(CheckpointError, match="lacks"):
        build(settings_for("loha"), init_lora=str(tmp_path))


def test_ema_and_release_have_their_places(build, configure, plain, tmp_path):
    model, part = build()
    average = Ema(part.parameters(), configure(ema_decay=0.5))
    learn(model, part)
    average.update(10)
    with average.swapped():
        part.save_ema(tmp_path)
        shown = answer(model)
    part.save_release(tmp_path)
    fresh = plain()
    open_adapter(fresh, tmp_path / "ema" / "ema_model.safetensors")
    torch.testing.assert_close(answer(fresh), shown, **EXACT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ema", "lycoris_config.json", WEIGHTS]


def test_given_tensors_are_saved_in_place_of_the_present_ones(build, tmp_path):
    model, part = build()
    learn(model, part)
    present = {name: tensor.clone() for name, tensor in part.state().items()}
    part.save(tmp_path, {name: torch.ones_like(tensor) for name, tensor in present.items()})
    assert all(torch.equal(tensor, present[name]) for name, tensor in part.state().items())
    part.load(tmp_path)
    assert all((tensor == 1).all() for tensor in part.state().values())


@pytest.mark.parametrize("algorithm", ["lokr", "loha", "lora"])
def test_a_network_over_a_quantised_base_fits_the_whole_one(build, plain, tmp_path, algorithm):
    model, part = build(settings_for(algorithm))
    learn(model, part)
    part.save(tmp_path)
    small = quantise(plain(), "int8-quanto")
    open_adapter(small, tmp_path / WEIGHTS)
    error = (answer(small) - answer(model)).norm() / answer(model).norm()
    assert error < 0.02
