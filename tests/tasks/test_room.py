"""The first task, where a run needs more memory than there is."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from flowtuner.engine.sizing.report import Sizing
from flowtuner.errors import ConfigError, EngineFault
from tasks import preflight

GIB = 1 << 30


def sizing(peak: int) -> Sizing:
    parts, phases = {"weights": peak // 2, "optimizer": peak // 2}, {"training": peak}
    return Sizing("cuda", 24 * GIB, 0, parts, phases, {"release": GIB}, 100, ("train_batch_size=1",))


@pytest.fixture
def check(tiny_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(preflight, "get_run_logger", logging.getLogger)
    return lambda: preflight.check_run.fn(tiny_run)


def test_it_is_refused_with_what_would_make_it_fit(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "look_closer", lambda loaded: sizing(40 * GIB))
    with pytest.raises(ConfigError) as refused:
        check()
    (fault,) = refused.value.faults
    assert fault.option == "memory"
    assert "about 40.0 GiB are needed (training; 20.0 GiB weights, 20.0 GiB optimizer)" in str(fault)
    assert "GPU has 24.0 GiB" in str(fault) and "train_batch_size=1" in str(fault)


@pytest.mark.parametrize("answer", [sizing(20 * GIB), None], ids=["fits", "small"])
def test_it_goes_on_where_it_fits(check: Any, monkeypatch: pytest.MonkeyPatch, answer: Sizing | None) -> None:
    monkeypatch.setattr(preflight, "look_closer", lambda loaded: answer)
    assert check().loaded.config.model_family == "pixart_sigma"


def test_what_cannot_be_counted_stops_nothing(check: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def fail(loaded: object) -> None:
        raise EngineFault("what the run takes could not be counted: why ever")

    monkeypatch.setattr(preflight, "look_closer", fail)
    assert check().loaded
    assert "could not be counted: why ever; whether the run fits will be seen" in caplog.text
