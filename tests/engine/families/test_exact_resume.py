"""Every family goes on where it was: the losses after a resume are those of a run that was never interrupted."""

import pytest

from flowtuner.engine.families import open_family, supported


@pytest.fixture(scope="module", params=supported())
def tiny(request, tmp_path_factory):
    return request.param, open_family(request.param).tiny(tmp_path_factory.mktemp(request.param) / "model")


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["full", "lora"])
def test_it_resumes_to_the_byte(start, tiny_run, tiny, model_type):
    name, path = tiny
    values = tiny_run | {"model_family": name, "pretrained_model_name_or_path": str(path), "model_type": model_type}
    straight = start(values, "straight")
    straight.session.train(4)
    first = start(values, "resumed")
    first.session.train(2)
    first.session.save_checkpoint()
    second = start(values, "resumed")
    second.session.train(4)
    assert second.losses() == {step: loss for step, loss in straight.losses().items() if step > 2}
