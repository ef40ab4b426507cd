"""Captions in tables: parquet, CSV and JSON lines, by name, with what may be missing."""

import json
import os

import pytest

from flowtuner.errors import DataError

ROWS = [
    {"filename": "a.png", "text": "a red dog", "long": "a red dog on a lawn"},
    {"filename": "sub/b.png", "text": "", "long": "something blue"},
    {"filename": "gone.png", "text": "nobody", "long": ""},
]


def write_table(path, rows):
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
        path.write_text("\n".join(lines))
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture
def pictures(draw):
    for number, name in enumerate(("a.png", "sub/b.png", "c.png")):
        draw(name, seed=number)


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_captions_come_from_a_table(tmp_path, pictures, make_entry, scan, kind):
    table = {
        "path": write_table(tmp_path / f"captions.{kind}", ROWS),
        "caption_column": "text",
        "fallback_caption_column": "long",
    }
    found = scan(make_entry(caption_strategy=kind, metadata_backend="parquet", parquet=table))
    assert [sample.captions for sample in found.samples] == [("a red dog",), ("something blue",)]
    (fault,) = found.quarantined
    assert os.path.basename(fault.path) == "c.png" and "no caption" in fault.reason


def test_a_row_may_hold_several_captions_under_a_name_without_suffix(tmp_path, pictures, make_entry, scan):
    rows = [{"id": "a", "text": ["one", "two"], "more": "three\nfour"}, {"id": "b", "text": "five", "more": None}]
    path = tmp_path / "captions.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    table = {
        "path": path,
        "filename_column": "id",
        "caption_column": ["text", "more"],
        "identifier_includes_extension": False,
    }
    found = scan(make_entry(caption_strategy="jsonl", parquet=table, ignore_missing_files=True))
    assert [sample.captions for sample in found.samples] == [("one", "two", "three", "four"), ("five",)]
    assert not found.quarantined


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.parquet", b"no table", "cannot be read"),
        ("t.jsonl", b"{", "line 1, is no JSON"),
        ("t.jsonl", b"[1]", "is no object"),
        ("t.jsonl", b'{"filename": "a.png", "words": "x"}', "has no column caption. It has: filename, words"),
        ("t.csv", b"filename,words\na.png,x\n", "has no column caption"),
        ("t.csv", b"filename,caption\n\xff\xfe,x\n", "cannot be read"),
        ("t.txt", b"x", "of no known kind"),
        (None, b"", "does not exist"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, pictures, make_entry, scan, name, content, words):
    path = tmp_path / (name or "t.csv")
    if name:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        scan(make_entry(caption_strategy="jsonl", parquet={"path": path}))


def test_captions_are_shuffled_and_cut(tmp_path, draw, make_entry, scan):
    draw("one.png").with_suffix(".txt").write_text("sks, a dog, red, on a lawn, watermark, 4k")
    cuts = tmp_path / "cuts.txt"
    cuts.write_text(", watermark\ns/\\b4(k)/8\\1/\n")
    options = {"caption_strategy": "textfile", "caption_filter_list": cuts}
    how = {"enable": True, "count": 3, "seed": 5, "position_start": 1}
    (sample,) = scan(make_entry(caption_shuffle=how, **options)).samples
    whole, *shuffled = sample.captions
    assert whole == "sks, a dog, red, on a lawn, 8k" and len(shuffled) in (2, 3)
    assert all(one.startswith("sks, ") and sorted(one.split(", ")) == sorted(whole.split(", ")) for one in shuffled)
    assert scan(make_entry(caption_shuffle=how, **options)).samples[0] == sample
    alone = scan(make_entry(caption_shuffle=how | {"include_original": False}, **options)).samples[0]
    assert set(shuffled) <= set(alone.captions)
    other = scan(make_entry(caption_shuffle=how | {"seed": 6}, **options)).samples[0]
    assert other.captions != sample.captions
