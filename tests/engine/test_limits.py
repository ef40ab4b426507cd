"""What the engine refuses is known from the options, without torch."""

import subprocess
import sys

import pytest

from flowtuner.engine.limits import OPTIMIZERS, find_limits, find_optimizer_faults
from flowtuner.engine.optim.recipes import RECIPES


def test_a_plain_run_has_none(configure):
    assert find_limits(configure()) == []


def test_the_list_of_optimizers_is_the_one_that_is_built():
    assert sorted(OPTIMIZERS) == sorted(RECIPES)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "soap"},
        {"mixed_precision": "fp16"},
        {"base_model_precision": "int8-quanto"},
        {"model_type": "lora", "lora_type": "lycoris"},
        {"model_type": "lora", "lora_init_type": "pissa"},
    ],
)
def test_each_limit_names_its_option(configure, options):
    (fault,) = find_limits(configure(**options))
    assert fault.option == list(options)[-1]
    assert fault.allowed


@pytest.mark.parametrize(
    ("name", "package", "install"),
    [
        ("optimi-lion", "torch-optimi", "flowtuner[optimizers]"),
        ("prodigy", "prodigyopt", "flowtuner[optimizers]"),
        ("adamw_schedulefree+no_kahan", "schedulefree", "flowtuner[optimizers]"),
        ("ao-adamw8bit", "torchao", "flowtuner[quant]"),
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


def test_all_limits_come_together(configure, tmp_path):
    library = tmp_path / "library.json"
    library.write_text("[]")
    config = configure(optimizer="soap", mixed_precision="fp8", user_prompt_library=library)
    assert [fault.option for fault in find_limits(config)] == ["optimizer", "mixed_precision", "user_prompt_library"]


def test_they_are_found_without_torch():
    code = "import sys, flowtuner.engine.limits; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
