"""A compiled run: the same numbers, the same files, and pictures that cost no compilation."""

import pytest
import torch
from torch._dynamo.utils import counters

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


LORA = {"model_type": "lora", "lora_rank": 4, "lora_dropout": 0.0}
DRAWN = {
    "validation_disable": False,
    "validation_prompt": "a red circle",
    "validation_resolution": "32x32",
    "validation_num_inference_steps": 2,
}


# torch's compiler looks at the gradients of what passes between blocks, and warns of it itself.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("regional", [None, True])
@pytest.mark.parametrize(
    "adapter", [pytest.param({}, id="full"), pytest.param(LORA, id="lora", marks=pytest.mark.slow)]
)
def test_a_compiled_run_trains_and_saves_what_a_plain_one_does(start, tiny_run, adapter, regional):
    plain = start(tiny_run | adapter, "plain")
    plain.session.train(3)
    assert not counters["stats"]
    choice = {"dynamo_backend": "eager", "dynamo_use_regional_compilation": regional}
    compiled = start(tiny_run | adapter | choice, "compiled")
    compiled.session.train(3)
    assert counters["stats"]["unique_graphs"] >= 1
    assert compiled.losses() == pytest.approx(plain.losses(), rel=1e-5)
    assert compiled.release().keys() == plain.release().keys()


def test_pictures_are_drawn_without_compiling_anew(start, tiny_run):
    run = start(tiny_run | DRAWN | {"dynamo_backend": "eager"}, "drawn")
    run.session.train(1)
    before = counters["stats"]["unique_graphs"]
    report = run.session.validate()
    assert report["error"] is None and report["images"]
    assert counters["stats"]["unique_graphs"] == before > 0
