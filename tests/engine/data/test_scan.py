"""The scan: what it finds, what it sets aside and why, and that it looks only once."""

import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from flowtuner.engine.data.captions import CaptionReader, MissingCaptionError
from flowtuner.engine.data.files import FoundFile
from flowtuner.engine.data.settings import CaptionSettings
from flowtuner.errors import DataError


def memo_of(root):
    with closing(sqlite3.connect(root / "index" / "pictures.sqlite")) as memo:
        rows = memo.execute("SELECT path, value FROM facts").fetchall()
    return {os.fsdecode(path): json.loads(value) for path, value in rows}


def read_captions(path, settings):
    def read_text(source):
        return Path(source).read_text(encoding="utf-8-sig")

    return CaptionReader(settings, "", read_text, None).read(FoundFile(path, (0, 0, 0, 0)))


def age(folder):
    """The memo distrusts files as young as the clock's tick; wait until these are older."""
    newest = max(path.stat().st_ctime_ns for path in folder.rglob("*"))
    while time.time_ns() - newest < 25_000_000:
        os.sched_yield()


def test_finds_pictures_and_ignores_the_rest(tmp_path, draw, make_entry, scan):
    draw("one.png")
    draw("sub/two_words.JPG", seed=1)
    draw(".hidden.png")
    draw(".hidden/three.png")
    (tmp_path / "pictures" / "one.txt").write_text("no picture")
    found = scan(make_entry())
    assert [(os.path.basename(s.path), s.captions, s.bucket) for s in found.samples] == [
        ("one.png", ("one",), (40, 32)),
        ("two_words.JPG", ("two words",), (40, 32)),
    ]
    assert not found.quarantined


def test_broken_files_are_set_aside_with_a_reason(tmp_path, draw, make_entry, scan):
    draw("good.png")
    folder = tmp_path / "pictures"
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no picture")
    (folder / "cut.png").write_bytes(draw("good.png").read_bytes()[:200])
    (folder / "lost.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    found = scan(make_entry())
    assert len(found.samples) == 1
    reasons = {os.path.basename(fault.path): fault.reason for fault in found.quarantined}
    assert set(reasons) == {"empty.png", "text.jpg", "cut.png", "lost.png", "pipe.png"}
    assert reasons["empty.png"] == "the file is empty"
    assert reasons["lost.png"] == "a link that leads nowhere"
    assert "damaged" in reasons["cut.png"]


def test_link_loops_are_harmless(tmp_path, draw, make_entry, scan):
    draw("a/one.png")
    folder = tmp_path / "pictures"
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "again").symlink_to(folder / "a")
    assert len(scan(make_entry()).samples) == 1


def test_same_name_with_other_suffix_is_another_sample(draw, make_entry, scan):
    draw("a.png", seed=1)
    draw("a.jpg", seed=2)
    first, second = scan(make_entry()).samples
    assert first.content != second.content and first.captions == second.captions


@pytest.mark.parametrize("content", ["missing", "empty", "broken"])
def test_dataset_without_a_usable_picture_is_an_error(tmp_path, make_entry, scan, content):
    folder = tmp_path / "pictures"
    if content != "missing":
        folder.mkdir()
    if content == "broken":
        for number in range(7):
            (folder / f"{number}.png").write_text("no picture")
    message = {"missing": "does not exist", "empty": "holds no pictures", "broken": "and 2 more"}[content]
    with pytest.raises(DataError, match=message):
        scan(make_entry())


def test_unchanged_pictures_are_not_read_again(tmp_path, draw, make_entry, scan):
    draw("one.png", seed=1)
    two = draw("two.png", seed=2)
    age(tmp_path / "pictures")
    before = {s.path: s.content for s in scan(make_entry()).samples}
    assert {path: facts[0] for path, facts in memo_of(tmp_path).items()} == before
    # A mark in the memo that only a scan which did not look can return.
    with closing(sqlite3.connect(tmp_path / "index" / "pictures.sqlite")) as memo, memo:
        memo.execute("UPDATE facts SET value = json_set(value, '$[0]', 'remembered')")
    draw("two.png", seed=3)
    after = {s.path: s.content for s in scan(make_entry()).samples}
    assert after[str(two)] not in ("remembered", before[str(two)])
    assert sorted(after.values(), key=len)[0] == "remembered"


def test_broken_pictures_are_remembered_too(tmp_path, draw, make_entry, scan):
    draw("one.png")
    (tmp_path / "pictures" / "bad.png").write_text("no picture")
    age(tmp_path / "pictures")
    assert scan(make_entry()) == scan(make_entry())
    assert len(memo_of(tmp_path)) == 2
    (tmp_path / "pictures" / "bad.png").unlink()
    scan(make_entry())
    assert len(memo_of(tmp_path)) == 1


@pytest.mark.parametrize("damage", [b"", b"no database", "middle", "version"])
def test_damaged_memo_is_rebuilt(tmp_path, draw, make_entry, scan, damage):
    draw("one.png")
    age(tmp_path / "pictures")
    before = scan(make_entry())
    path = tmp_path / "index" / "pictures.sqlite"
    if damage == "version":
        with closing(sqlite3.connect(path)) as memo:
            memo.execute("PRAGMA user_version = 99")
    else:
        whole = path.read_bytes()
        path.write_bytes(damage if isinstance(damage, bytes) else whole[:100] + b"x" * (len(whole) - 100))
    assert scan(make_entry()) == before
    scan(make_entry())
    assert list(memo_of(tmp_path)) == [before.samples[0].path]


def test_a_memo_that_another_process_holds_is_done_without(tmp_path, draw, make_entry, scan, monkeypatch):
    draw("one.png")
    age(tmp_path / "pictures")
    before = scan(make_entry())
    monkeypatch.setattr("flowtuner.engine.data.memo.LOCK_WAIT_S", 0.01)
    with closing(sqlite3.connect(tmp_path / "index" / "pictures.sqlite")) as memo:
        memo.execute("BEGIN EXCLUSIVE")
        assert scan(make_entry()) == before


def test_a_preserved_listing_is_taken_for_what_is_there(tmp_path, draw, make_entry, scan):
    draw("one.png")
    age(tmp_path / "pictures")
    entry = make_entry(preserve_data_backend_cache=True)
    first = scan(entry)
    draw("two.png", seed=1)
    assert scan(entry) == first and len(first.samples) == 1
    assert len(scan(make_entry()).samples) == 2


def test_limits_leave_pictures_out(draw, make_entry, scan):
    for number in range(4):
        draw(f"{number}.png", seed=number)
    draw("small.png", size=(10, 10))
    found = scan(make_entry(minimum_image_size=20, max_num_samples=3))
    assert len(found.samples) == 3
    found = scan(make_entry(minimum_image_size=20))
    assert [os.path.basename(fault.path) for fault in found.quarantined] == ["small.png"]


def test_other_and_disabled_datasets_are_passed_over(draw, make_entry, scan):
    draw("one.png")
    texts = make_entry(id="texts", dataset_type="text_embeds", instance_data_dir=None)
    off = make_entry(id="off", disabled=True, instance_data_dir="/nowhere")
    assert len(scan(make_entry(), texts, off).samples) == 1
    with pytest.raises(DataError, match="no dataset of pictures is enabled"):
        scan(texts, off)


CAPTION_CASES = [
    ({"strategy": "filename"}, None, ("a red dog",)),
    ({"strategy": "filename", "prepend": True, "instance_prompts": ("sks",)}, None, ("sks a red dog",)),
    ({"strategy": "textfile"}, "one\n\n two \n", ("one", "two")),
    ({"strategy": "textfile", "split_lines": False}, "one\ntwo\n", ("one\ntwo",)),
    ({"strategy": "textfile"}, "\ufeffmarked", ("marked",)),
    ({"strategy": "textfile"}, "", ("",)),
    ({"strategy": "textfile", "ignore_missing": True}, None, ()),
    ({"strategy": "textfile", "prepend": True, "instance_prompts": ("x", "y")}, "1\n2", ("x 1", "x 2", "y 1", "y 2")),
    ({"strategy": "instanceprompt", "instance_prompts": ("x", "y")}, "unused", ("x", "y")),
]


@pytest.mark.parametrize(("settings", "text", "captions"), CAPTION_CASES)
def test_captions(tmp_path, settings, text, captions):
    if text is not None:
        (tmp_path / "a_red_dog.txt").write_text(text, encoding="utf-8")
    assert read_captions(str(tmp_path / "a_red_dog.png"), CaptionSettings(**settings)) == captions


@pytest.mark.parametrize(("data", "message"), [(None, "is missing"), (b"\xff\xfe\x00", "not UTF-8")])
def test_caption_files_that_cannot_be_read(tmp_path, data, message):
    if data:
        (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(MissingCaptionError, match=message):
        read_captions(str(tmp_path / "a.png"), CaptionSettings(strategy="textfile"))


def test_missing_caption_sets_the_sample_aside(tmp_path, draw, make_entry, scan):
    draw("one.png")
    draw("two.png", seed=1)
    (tmp_path / "pictures" / "two.txt").write_text("two")
    found = scan(make_entry(caption_strategy="textfile"))
    assert [s.captions for s in found.samples] == [("two",)]
    assert "one.txt is missing" in found.quarantined[0].reason


def test_missing_captions_may_be_ignored(tmp_path, draw, make_entry, scan):
    draw("one.png")
    entry = make_entry(caption_strategy="textfile", ignore_missing_files=True)
    with pytest.raises(DataError, match="none of the 1 pictures has a caption file"):
        scan(entry)
    draw("two.png", seed=1)
    (tmp_path / "pictures" / "two.txt").write_text("two")
    found = scan(entry)
    assert len(found.samples) == 1 and not found.quarantined


def test_only_instance_prompt_overrides_the_strategy(draw, make_entry, scan):
    draw("one.png")
    entry = make_entry(caption_strategy="textfile", instance_prompt="sks", only_instance_prompt=True)
    assert scan(entry).samples[0].captions == ("sks",)


def test_name_that_is_not_utf8(tmp_path, draw, make_entry, scan):
    data = draw("one.png").read_bytes()
    (tmp_path / "pictures" / os.fsdecode(b"caf\xe9.png")).write_bytes(data)
    found = scan(make_entry())
    assert len(found.samples) == 1 and "not UTF-8" in found.quarantined[0].reason
    assert len(scan(make_entry(instance_prompt="x", caption_strategy="instanceprompt")).samples) == 2


@pytest.mark.slow
def test_ten_thousand_unchanged_pictures_scan_in_three_seconds(tmp_path, draw, make_entry, scan):
    data = draw("0.png", size=(8, 8)).read_bytes()
    for number in range(10_000):
        path = tmp_path / "pictures" / f"{number}.png"
        path.write_bytes(data)
        path.with_suffix(".txt").write_text(f"caption {number}")
    age(tmp_path / "pictures")
    scan(make_entry(caption_strategy="textfile"))
    started = time.monotonic()
    assert len(scan(make_entry(caption_strategy="textfile")).samples) == 10_000
    assert time.monotonic() - started < 3
