"""Quantised bases: how much memory they leave, how near they stay, and that training over them is exact."""

import pytest
import torch

from flowtuner.engine.adapters import attach
from flowtuner.engine.families import open_family
from flowtuner.engine.formats import FORMATS, find_precision_faults
from flowtuner.engine.precision import resolve_precision
from flowtuner.engine.quantize import count_bytes, quantise, quantise_base
from flowtuner.errors import ConfigError

CPU = torch.device("cpu")
# Bytes per weight of the repeated blocks' layers, scales included, and how far an answer may go astray.
EXPECTED = {
    "int8-quanto": (1.04, 0.02),
    "int4-quanto": (0.60, 0.15),
    "int2-quanto": (0.35, 0.8),
    "fp8-quanto": (1.04, 0.06),
    "fp8uz-quanto": (1.04, 0.06),
    "int8-torchao": (1.06, 0.02),
    "fp8wo-torchao": (1.04, 0.06),
}
# The slow lane installs torchao, whose import every start of diffusers pays for; quanto compiles for fewer bits.
TRIED = [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in ("int8-quanto", "fp8-quanto"))) for name in EXPECTED
]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return open_family("pixart_sigma").tiny(tmp_path_factory.mktemp("models") / "pixart", layers=2)


@pytest.fixture
def load(source, configure):
    def make(dtype=torch.float32, **options):
        family = open_family("pixart_sigma")(source, configure(**options))
        return family.load_model(dtype, CPU)

    return make


def answer(model):
    generator = torch.Generator().manual_seed(0)
    dtype = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    latents, text = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 5, 64, generator=generator)
    with torch.no_grad():
        return model(latents.to(dtype), text.to(dtype), torch.tensor([300])).sample.float()


@pytest.mark.slow
def test_every_format_that_this_machine_computes_is_tried_here(configure):
    here = [
        name
        for name in FORMATS
        if not list(find_precision_faults(configure(model_type="lora", base_model_precision=name)))
    ]
    assert set(here) >= set(EXPECTED)


@pytest.mark.parametrize("name", TRIED)
def test_the_frozen_base_really_takes_less_memory_and_stays_near(load, name):
    whole = load()
    wanted = answer(whole)
    blocks = sum(layer.weight.numel() for layer in layers_of(whole))
    before = count_bytes(whole)
    quantise(whole, name)
    per_weight, tolerance = EXPECTED[name]
    assert count_bytes(whole) == pytest.approx(before - 4 * blocks + per_weight * blocks, rel=0.03)
    assert (answer(whole) - wanted).norm() / wanted.norm() < tolerance


def layers_of(model):
    return [module for module in model.transformer_blocks.modules() if isinstance(module, torch.nn.Linear)]


def test_what_comes_before_and_after_the_blocks_is_left_alone(load):
    model = load()
    outside = {name: tensor.clone() for name, tensor in model.state_dict().items() if "blocks" not in name}
    quantise(model, "int8-quanto")
    now = dict(model.named_parameters()) | dict(model.named_buffers())
    assert all(torch.equal(tensor, now[name]) for name, tensor in outside.items())


@pytest.mark.parametrize("via", ["cpu", "accelerator", "pipeline"])
def test_where_it_is_quantised_changes_no_bit(load, configure, via):
    config = configure(model_type="lora", base_model_precision="int8-quanto", quantize_via=via)
    model = quantise_base(lambda dtype, device: load(dtype), torch.float32, CPU, config)
    assert torch.equal(answer(model), answer(quantise(load(), "int8-quanto")))


@pytest.mark.slow
def test_a_format_without_a_way_back_is_refused_before_anything_is_trained(load, monkeypatch):
    from flowtuner.engine import quantize

    monkeypatch.setitem(quantize.TORCHAO_CONFIGS, "fp8-torchao", "Int8DynamicActivationInt8WeightConfig")
    with pytest.raises(ConfigError, match="no gradient"):
        quantise(load(), "fp8-torchao")


def test_quantising_draws_nothing_from_the_global_generator(load):
    model, before = load(), torch.get_rng_state()
    quantise(model, "int8-quanto")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["int8-quanto", pytest.param("int8-torchao", marks=pytest.mark.slow)])
@pytest.mark.parametrize("lora_type", ["standard", "lycoris"])
def test_gradients_over_a_quantised_base_are_those_over_the_whole_one(load, configure, source, name, lora_type):
    gradients = []
    for precision in ("fp32", name):
        options = {"model_type": "lora", "lora_type": lora_type, "lycoris_config": None, "lora_dropout": 0.0}
        config = configure(**options, base_model_precision=precision, init_lokr_norm=1e-2)
        family = open_family("pixart_sigma")(source, config)
        model = load() if precision == "fp32" else quantise(load(), name)
        torch.manual_seed(0)
        part = attach(model, config, family, resolve_precision(config, CPU))
        model(torch.ones(1, 4, 8, 8), torch.ones(1, 3, 64), torch.tensor([5])).sample.square().mean().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in part.parameters()]))
    whole, quantised = gradients
    assert torch.nn.functional.cosine_similarity(whole, quantised, dim=0) > 0.995


@pytest.mark.parametrize("adapter", [{"lora_type": "standard"}, {"lora_type": "lycoris", "optimizer": "optimi-lion"}])
def test_a_run_over_a_quantised_base_resumes_to_the_byte_and_is_shown(start, tiny_run, adapter):
    values = tiny_run | adapter | {"model_type": "lora", "lora_rank": 4, "base_model_precision": "int8-quanto"}
    values |= {
        "validation_disable": False,
        "validation_prompt": "a red circle",
        "validation_resolution": "32x32",
        "validation_num_inference_steps": 2,
    }
    straight = start(values, "straight")
    straight.session.train(4)
    first = start(values)
    first.session.train(2)
    first.session.save_checkpoint()
    first.session.train(3)  # lost with the process
    last = start(values)
    assert last.session.validate()["error"] is None
    last.session.train(4)
    assert last.release() == straight.release()
    assert count_bytes(last.session._trainer.model) < 0.5 * 4 * 1_250_000


@pytest.mark.parametrize("precision", ["int8-quanto", "bf16"])
def test_a_text_encoder_stands_in_its_own_format_and_has_a_cache_of_its_own(
    source, configure, start, tiny_run, precision
):
    whole = open_family("pixart_sigma")(source, configure()).load_text_encoder(torch.float32, CPU)
    config = configure(text_encoder_1_precision=precision)
    small = open_family("pixart_sigma")(source, config).load_text_encoder(torch.float32, CPU)
    assert count_bytes(small._model) < 0.9 * count_bytes(whole._model)
    one, other = (encoder.encode(["a red circle"])[0]["prompt_embeds"].float() for encoder in (whole, small))
    assert 0 < (one - other).norm() / one.norm() < 0.05

    labels = []
    for values in (tiny_run, tiny_run | {"text_encoder_1_precision": precision}, tiny_run):
        run = start(values)
        labels += [
            data["label"] for _, data in run.events if data.get("key") == "text_cache" and "cached" in data["label"]
        ]
    assert [label.startswith("text: 0 cached") for label in labels] == [True, True, False]
