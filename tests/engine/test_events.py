"""The event log: numbered, durable, readable while it is written."""

import json
import resource
import threading

from flowtuner.engine.events import EventLog, follow_events, last_seq, read_events


def test_numbers_go_on_where_an_earlier_run_stopped(tmp_path):
    path = tmp_path / "logs" / "events.jsonl"
    with EventLog(path, run="a") as first:
        first.append("training.progress", {"step": 1})
        first.append("training.progress", {"step": 2})
    with EventLog(path, run="b") as second:
        second.append("training.progress", {"step": 3})
    assert [(event.seq, event.run, event.data["step"]) for event in read_events(path)] == [
        (1, "a", 1),
        (2, "a", 2),
        (3, "b", 3),
    ]


def test_a_line_cut_by_a_kill_is_no_event_and_hides_none(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path, run="a") as log:
        log.append("notification", {"message": "one"})
    with path.open("a") as file:
        file.write('{"seq": 2, "time": 1.0, "run": "a", "ty')
    with EventLog(path, run="b") as log:
        log.append("notification", {"message": "two"})
    assert [(event.seq, event.data["message"]) for event in read_events(path)] == [(1, "one"), (2, "two")]


def test_reading_after_a_number_skips_what_is_known(tmp_path):
    with EventLog(tmp_path / "events.jsonl", run="a") as log:
        for number in range(5):
            log.append("training.metric", {"step": number})
    assert [event.seq for event in read_events(log.path, after=3)] == [4, 5]
    assert last_seq(log.path) == 5


def test_a_last_line_longer_than_the_tail_is_still_found(tmp_path):
    with EventLog(tmp_path / "events.jsonl", run="a") as log:
        log.append("notification", {"message": "x" * 200_000})
    assert last_seq(log.path) == 1


def test_following_delivers_each_event_once_and_ends_when_told(tmp_path):
    path = tmp_path / "events.jsonl"
    stop = threading.Event()
    seen = []
    reader = threading.Thread(
        target=lambda: seen.extend(event.seq for event in follow_events(path, 0, stop, poll_s=0.001))
    )
    reader.start()
    with EventLog(path, run="a") as log:
        for number in range(200):
            log.append("training.metric", {"step": number})
    stop.set()
    reader.join(timeout=10)
    assert seen == list(range(1, 201))


def test_many_threads_write_one_sequence(tmp_path):
    with EventLog(tmp_path / "events.jsonl", run="a") as log:
        threads = [threading.Thread(target=lambda: [log.append("x", {}) for _ in range(50)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    numbers = [json.loads(line)["seq"] for line in log.path.read_text().splitlines()]
    assert numbers == list(range(1, 401))


def test_two_logs_on_one_file_never_give_the_same_number(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path, "one") as one, EventLog(path, "two") as two:
        for _ in range(3):
            one.notify("info", "of one")
            two.notify("info", "of two")
    events = list(read_events(path))
    assert [event.seq for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event.run for event in events] == ["one", "two"] * 3


def test_events_of_a_full_disk_are_written_once_there_is_room(tmp_path):
    path = tmp_path / "events.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with EventLog(path, "run") as log:
        log.notify("info", "before")
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limits[1]))  # the next line is cut off
        try:
            log.notify("info", "cut")
            log.notify("info", "full")
            assert [event.seq for event in read_events(path)] == [1]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        log.notify("info", "after")
    assert [event.data["message"] for event in read_events(path)] == ["before", "cut", "full", "after"]
    assert [event.seq for event in read_events(path)] == [1, 2, 3, 4]
