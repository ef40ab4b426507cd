"""How long an upload is tried again: as long as it gets on, and longer than an outage lasts."""

from __future__ import annotations

from tasks.retries import PATIENCE_S, Patience


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_patience_outlasts_an_outage_and_ends() -> None:
    clock = Clock()
    patience = Patience(clock=clock)
    clock.now = 60
    assert not patience.is_over
    clock.now = PATIENCE_S
    assert patience.is_over


def test_every_byte_more_renews_it_and_the_same_bytes_again_do_not() -> None:
    clock = Clock()
    patience = Patience(100, clock)
    for at, done, is_over in ((90, 10, False), (180, 20, False), (270, 20, False), (280, 5, True), (290, 21, False)):
        clock.now = at
        patience.note(done)
        assert patience.is_over is is_over, at


def test_waiting_for_its_turn_is_no_outage() -> None:
    clock = Clock()
    patience = Patience(100, clock)
    clock.now = 1000
    patience.begin()
    assert not patience.is_over
