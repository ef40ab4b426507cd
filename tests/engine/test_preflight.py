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
