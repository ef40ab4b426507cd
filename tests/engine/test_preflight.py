"""What the check says about optimizers that the run would accept and that would surprise."""

import pytest

from flowtuner.engine.preflight import inspect_run
from flowtuner.options import load


@pytest.mark.parametrize(
    ("options", "check", "words"),
    [
        ({"optimizer": "prodigy", "learning_rate": 1e-4}, "learning_rate", "1.0 is usual"),
        ({"optimizer": "adamw_schedulefree", "lr_scheduler": "cosine"}, "lr_scheduler", "constant_with_warmup"),
    ],
)
def test_an_optimizer_that_works_differently_is_a_warning(tiny_run, options, check, words):
    findings = inspect_run(load(values=tiny_run | options, environ={}))
    (finding,) = [finding for finding in findings if finding.check == check]
    assert finding.level == "warning"
    assert words in str(finding)


def test_trackers_that_are_not_built_are_a_warning(tiny_run):
    assert inspect_run(load(values=tiny_run | {"report_to": "tensorboard"}, environ={})) == []
    (finding,) = inspect_run(load(values=tiny_run | {"report_to": "wandb,tensorboard"}, environ={}))
    assert (finding.level, finding.check) == ("warning", "report_to")
