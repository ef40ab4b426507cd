"""What the check says about optimizers that the run would accept and that would surprise."""

import pytest

from flowtuner.engine.preflight import inspect_run
from flowtuner.engine.trackers import wanted_trackers
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
    (finding,) = inspect_run(load(values=tiny_run | {"report_to": "swanlab,tensorboard"}, environ={}))
    assert (finding.level, finding.check) == ("warning", "report_to")


def test_wandb_without_a_key_is_a_warning_and_never_asks_for_one(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr("flowtuner.engine.trackers.is_installed", lambda module: True)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    loaded = load(values=tiny_run | {"report_to": "tensorboard,wandb"}, environ={})
    (finding,) = inspect_run(loaded)
    assert (finding.level, finding.check) == ("warning", "report_to")
    assert "WANDB_MODE=offline" in str(finding)
    assert wanted_trackers(loaded.config) == ["tensorboard"]
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password k\n")
    assert inspect_run(loaded) == []
    assert wanted_trackers(loaded.config) == ["tensorboard", "wandb"]
