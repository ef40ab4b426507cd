"""What people and machines see of a run's events."""

import json

import pytest

from flowtuner.cli.display import (
    BarDisplay,
    JsonDisplay,
    PlainDisplay,
    describe,
    describe_figures,
    format_bytes,
    format_duration,
    open_display,
)
from flowtuner.engine.events import Event

PROGRESS = {"step": 12, "total_steps": 40, "loss": 0.25, "learning_rate": 1e-4, "steps_per_s": 2.5, "eta_s": 11.2}


def event(type: str, **data) -> Event:
    return Event(1, 1000.0, "run", type, data)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (event("training.checkpoint", path="/o/checkpoint-4", step=4, is_final=False), "checkpoint at step 4: /o/"),
        (event("training.checkpoint", path="/o", step=4, is_final=True), "final weights at step 4: /o"),
        (event("training.validation", step=4, sheet="/o/s.png"), "validation at step 4: /o/s.png"),
        (event("notification", severity="warning", message="a.png is broken"), "warning: a.png is broken"),
        (event("lifecycle.stage", key="vae_cache", status="completed", label="pictures: 3 cached", current=3, total=3),
         "pictures: 3 cached (3 of 3)"),
        (event("lifecycle.stage", key="x", status="failed", label="validated at step 4"), "failed: validated"),
        (event("publish.status", state="failed", what="checkpoint-4", destination="share", message="disk full"),
         "not published: checkpoint-4 to share: disk full"),
        (event("publish.status", state="verified", what="release", destination="share", files=3, bytes=2_000_000,
               uri="file:///s", verified=True), "pushed release to share: 3 files, 2.0 MB, verified, file:///s"),
        (event("publish.status", state="verified", what="release", destination="share", files=1, bytes=10, sent_bytes=0,
               uri="file:///s", verified=True), "already there: release to share: 1 file, 10 B, verified, file:///s"),
        (event("publish.status", state="uploading", what="release", destination="share", files=1, bytes=10),
         "pushing release to share: 1 file, 10 B"),
        (event("publish.status", state="uploading", what="release", destination="share", done_bytes=1, total_bytes=3),
         "upload of release to share: 33 %"),
        (event("publish.status", state="uploading", what="release", destination="share", message="it was away"),
         "upload of release to share is tried again: it was away"),
        (event("script.status", state="completed", script="post_upload_script", what="release", seconds=1.5),
         "post_upload_script for release: done in 1.5 s"),
    ],
)  # fmt: skip
def test_events_that_matter_become_one_line(shown, expected):
    assert describe(shown).startswith(expected)


@pytest.mark.parametrize(
    "silent",
    [
        event("training.metric", step=1, loss=1.0),
        event("training.validation", step=4, sheet=None),
        event("script.status", state="started", script="post_upload_script", what="release"),
        event("lifecycle.stage", key="model_save", status="completed", label="final weights written"),
    ],
)
def test_events_that_only_machines_want_are_silent(silent):
    assert describe(silent) is None


def test_figures_leave_out_what_is_not_known():
    assert describe_figures(PROGRESS) == "loss 0.2500, lr 1.00e-04, 2.50 it/s, ETA 0:11"
    assert describe_figures({"loss": None, "eta_s": None}) == ""


def test_plain_lines_go_to_stderr(capsys):
    PlainDisplay().show(event("training.progress", **PROGRESS))
    out, err = capsys.readouterr()
    assert out == ""
    assert "step 12/40, loss 0.2500" in err


def test_plain_progress_comes_every_ten_seconds_and_at_the_end(capsys):
    display = PlainDisplay()
    for second in range(31):
        data = {"step": second + 1, "total_steps": 31}
        display.show(Event(second, 1000.0 + second, "run", "training.progress", data))
    steps = [line.split()[2] for line in capsys.readouterr().err.splitlines()]
    assert steps == ["1/31,", "11/31,", "21/31,", "31/31,"]


def test_plain_upload_lines_come_every_ten_seconds_for_each_upload(capsys):
    display = PlainDisplay()
    for second in range(21):
        for what in ("checkpoint-4", "release"):
            data = {"state": "uploading", "what": what, "destination": "s", "done_bytes": second, "total_bytes": 20}
            display.show(Event(second, 1000.0 + second, "run", "publish.status", data))
    said = [line.split(maxsplit=1)[1] for line in capsys.readouterr().err.splitlines()]
    assert said[::2] == [f"upload of checkpoint-4 to s: {percent} %" for percent in (0, 50, 100)]
    assert len(said) == 6


def test_json_is_one_object_per_line_on_stdout(capsys):
    display = JsonDisplay()
    display.show(event("training.progress", **PROGRESS))
    display.show(event("notification", severity="info", message="two\nlines"))
    out, err = capsys.readouterr()
    first, second = map(json.loads, out.splitlines())
    assert (first["type"], first["data"]["step"]) == ("training.progress", 12)
    assert second["data"]["message"] == "two\nlines"
    assert err == ""


def test_the_bar_shows_stage_and_figures(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    display = BarDisplay()
    display.show(
        event("lifecycle.stage", key="text_cache", status="running", label="encoding text", current=3, total=9)
    )
    display.show(event("training.progress", **PROGRESS))
    display.show(event("notification", severity="warning", message="[brackets] stay"))
    display.close()
    err = capsys.readouterr().err
    assert "12/40" in err
    assert "ETA 0:11" in err
    assert "warning: [brackets] stay" in err


def test_without_a_terminal_there_is_no_bar():
    assert isinstance(open_display(as_json=False), PlainDisplay)
    assert isinstance(open_display(as_json=True), JsonDisplay)


def test_units():
    assert [format_duration(value) for value in (5, 65, 3725)] == ["0:05", "1:05", "1:02:05"]
    assert [format_bytes(value) for value in (7, 1500, 2.5e9, 3e12)] == ["7 B", "1.5 KB", "2.5 GB", "3.0 TB"]
