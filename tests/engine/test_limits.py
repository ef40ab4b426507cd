"""What the engine refuses is known from the options, without torch."""

import subprocess
import sys

import pytest

from flowtuner.engine.formats import find_precision_faults
from flowtuner.engine.limits import OPTIMIZERS, find_adapter_faults, find_limits, find_optimizer_faults
from flowtuner.engine.optim.recipes import RECIPES
from flowtuner.engine.processes import wants_sharding


def test_a_plain_run_has_none(configure):
    assert find_limits(configure()) == []


def test_the_list_of_optimizers_is_the_one_that_is_built():
    assert sorted(OPTIMIZERS) == sorted(RECIPES)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "soap"},
        {"mixed_precision": "fp8"},
        {"base_model_precision": "int8-quanto"},
        {"model_type": "lora", "base_model_precision": "nf4-bnb"},
        {"model_type": "lora", "base_model_precision": "int8-sdnq"},
        {"model_type": "lora", "base_model_precision": "int8dq-torchao"},
        {"text_encoder_2_precision": "int8-sdnq"},
        {"optimizer": "adamw_bf16", "mixed_precision": "fp16"},
        {
            "model_type": "lora",
            "optimizer": "adamw_bf16",
            "base_model_precision": "int8-quanto",
            "base_model_default_dtype": "fp32",
        },
        {"model_type": "lora", "lora_init_type": "loftq"},
        {"model_type": "lora", "base_model_precision": "int8-quanto", "lora_init_type": "pissa"},
        {"model_type": "lora", "lora_type": "lycoris", "lora_format": "comfyui"},
        {
            "model_type": "lora",
            "lora_type": "lycoris",
            "lycoris_config": {"algo": "full", "multiplier": 1.0, "linear_alpha": 1},
            "base_model_precision": "int8-quanto",
        },
    ],
)
def test_each_limit_names_its_option(configure, options):
    (fault,) = find_limits(configure(**options))
    assert fault.option in list(options)
    assert fault.allowed


@pytest.mark.parametrize(
    ("name", "package", "install"),
    [
        ("optimi-lion", "torch-optimi", "flowtuner[optimizers]"),
        ("prodigy", "prodigyopt", "flowtuner[optimizers]"),
        ("adamw_schedulefree+no_kahan", "schedulefree", "flowtuner[optimizers]"),
        ("ao-adamw8bit", "torchao", "flowtuner[torchao]"),
        ("bnb-lion8bit-paged", "bitsandbytes", "bitsandbytes"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(name, package, install):
    (fault,) = find_optimizer_faults(name, is_here=lambda module: False)
    assert package in fault.problem
    assert f"pip install '{install}'" in fault.suggestion
    assert "torch-adamw" in fault.allowed
    assert name not in fault.allowed
    assert list(find_optimizer_faults(name, is_here=lambda module: True)) == []


def test_a_missing_package_of_an_adapter_or_a_format_is_named_with_what_installs_it(configure):
    def nothing(module):
        return False

    config = configure(model_type="lora", lora_type="lycoris", base_model_precision="int8-quanto")
    (adapter,) = find_adapter_faults(config, is_here=nothing)
    assert "pip install 'flowtuner[lycoris]'" in str(adapter)
    (precision,) = find_precision_faults(config, is_here=nothing)
    assert "optimum-quanto" in precision.problem
    assert "pip install 'flowtuner[quant]'" in precision.suggestion
    assert "int8" not in precision.allowed


@pytest.mark.parametrize("name", ["int4-torchao", "fp8-torchao"])
def test_a_format_that_the_machine_cannot_compute_names_what_comes_nearest(configure, name):
    config = configure(model_type="lora", base_model_precision=name)
    (fault,) = find_precision_faults(config, is_here=lambda module: True, has_device=lambda: False)
    assert "CUDA" in fault.problem
    assert fault.suggestion.split()[0] in fault.allowed
    assert not list(find_precision_faults(config, is_here=lambda module: True, has_device=lambda: True))


def test_all_limits_come_together(configure, tmp_path):
    library = tmp_path / "library.json"
    library.write_text("[]")
    config = configure(optimizer="soap", mixed_precision="fp8", user_prompt_library=library)
    assert [fault.option for fault in find_limits(config)] == ["optimizer", "mixed_precision", "user_prompt_library"]


def test_they_are_found_without_torch():
    code = "import sys, flowtuner.engine.limits; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def refused_cut_up(configure, **options):
    values = {"fsdp_enable": True, "num_processes": 2} | options
    return [(fault.option, fault.allowed) for fault in find_limits(configure(**values))]


@pytest.mark.parametrize(
    ("options", "faults"),
    [
        ({}, []),
        ({"model_type": "lora", "use_ema": True}, []),
        ({"num_processes": 1}, [("fsdp_enable", "num_processes from 2")]),
        ({"fsdp_version": 1}, [("fsdp_version", "2")]),
        ({"model_type": "lora", "lora_init_type": "pissa"}, [("lora_init_type", "default, gaussian")]),
        ({"dynamo_backend": "inductor", "controlnet": True}, [("controlnet", "false"), ("dynamo_backend", "no")]),
    ],
)
def test_what_a_model_that_is_cut_up_cannot_have(configure, options, faults):
    assert refused_cut_up(configure, **options) == faults


def test_optimizers_that_know_no_shares_are_refused_with_those_that_do(configure):
    [(option, allowed)] = refused_cut_up(configure, optimizer="adamw_bf16")
    assert option == "optimizer"
    assert "torch-adamw" in allowed


def test_accelerates_own_file_asks_for_a_cut_up_model(configure, tmp_path):
    file = tmp_path / "accelerate.yaml"
    file.write_text("distributed_type: FSDP\nnum_processes: 2\nfsdp_config:\n  fsdp_version: 2\n")
    assert wants_sharding(configure(accelerate_config=str(file)))
    assert find_limits(configure(accelerate_config=str(file))) == []
    file.write_text("distributed_type: FSDP\nnum_processes: 2\nfsdp_config:\n  fsdp_version: 1\n")
    assert [fault.option for fault in find_limits(configure(accelerate_config=str(file)))] == ["fsdp_version"]
