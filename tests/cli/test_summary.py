"""What the last lines of a run say."""

from flowtuner.cli.summary import Summary
from flowtuner.cli.watch import Watch
from flowtuner.engine.events import EventLog


class Recorder:
    """Keeps what it is shown."""

    def __init__(self):
        self.shown, self.is_closed = [], False

    def show(self, event):
        self.shown.append(event.type)

    def close(self):
        self.is_closed = True


def test_a_watch_shows_only_its_own_runs_events_and_sums_them_up(tmp_path):
    path = tmp_path / "logs" / "events.jsonl"
    with EventLog(path, "earlier") as log:
        log.append("training.checkpoint", {"path": "old", "step": 1, "is_final": False})
    recorder, summary = Recorder(), Summary(tmp_path)
    with Watch(path, recorder, summary), EventLog(path, "now") as log:
        log.append("training.progress", {"step": 4, "total_steps": 4, "loss": 0.5})
        log.append("training.checkpoint", {"path": "/o/checkpoint-4", "step": 4, "is_final": False})
        log.append("training.checkpoint", {"path": "/o", "step": 4, "is_final": True})
        log.append("training.validation", {"step": 4, "sheet": "/o/sheet.png"})
        log.append("publish.status", {"destination": "share", "what": "release", "state": "uploading"})
        facts = {"state": "verified", "verified": True, "files": 2, "bytes": 10, "uri": "file:///x"}
        log.append("publish.status", {"destination": "share", "what": "release"} | facts)
    assert len(recorder.shown) == 6
    assert recorder.is_closed
    text = "\n".join(summary.describe_results(61))
    assert "Done in 1:01: trained to step 4 of 4, last loss 0.5000." in text
    assert "Checkpoint:  /o/checkpoint-4" in text
    assert "Validation:  /o/sheet.png" in text
    assert "Publishing:  published release to share: 2 files, 10 B, verified, file:///x" in text
    assert "old" not in text


def test_older_checkpoints_are_counted_and_failures_always_told(tmp_path):
    summary = Summary(tmp_path)
    for number in (2, 4, 10):
        what = {"destination": "share", "what": f"checkpoint-{number}", "verified": number != 4, "message": "disk full"}
        summary.published["share", f"checkpoint-{number}"] = what
    failed, newest, older = summary.describe_publishing()
    assert failed == "not published: checkpoint-4 to share: disk full"
    assert newest.startswith("published checkpoint-10 to share")
    assert older == "1 older checkpoint to share, verified"


def test_a_stop_says_where_the_checkpoint_is(tmp_path):
    assert "before the first checkpoint" in Summary(tmp_path).describe_stop("interrupted")
    saved = Summary(tmp_path, checkpoint="/o/checkpoint-7").describe_stop("preempted")
    assert saved == "preempted. The checkpoint is /o/checkpoint-7; the same command goes on from there."


def test_where_nothing_was_trained_no_steps_are_told(tmp_path):
    assert Summary(tmp_path).describe_results(1)[0] == "Done in 0:01."


def test_the_newest_checkpoint_is_told_whichever_arrived_last(tmp_path):
    summary = Summary(tmp_path)
    for step in (9, 6):
        what = {"what": f"checkpoint-{step}", "destination": "share", "verified": True, "step": step, "files": 1}
        summary.published["share", f"checkpoint-{step}"] = what | {"bytes": 1, "uri": "file:///x", "state": "verified"}
    newest, older = summary.describe_publishing()
    assert newest.startswith("published checkpoint-9 to share")
    assert older.startswith("1 older checkpoint")
