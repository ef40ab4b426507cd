"""What the engine refuses is known from the options, without torch."""

import subprocess
import sys

import pytest

from flowtuner.engine.limits import OPTIMIZERS, find_limits
from flowtuner.engine.optim.factory import RECIPES


def test_a_plain_run_has_none(configure):
    assert find_limits(configure()) == []


def test_the_list_of_optimizers_is_the_one_that_is_built():
    assert sorted(OPTIMIZERS) == sorted(RECIPES)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "bnb-adamw8bit"},
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


def test_all_limits_come_together(configure, tmp_path):
    library = tmp_path / "library.json"
    library.write_text("[]")
    config = configure(optimizer="soap", mixed_precision="fp8", user_prompt_library=library)
    assert [fault.option for fault in find_limits(config)] == ["optimizer", "mixed_precision", "user_prompt_library"]


def test_they_are_found_without_torch():
    code = "import sys, flowtuner.engine.limits; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
