"""What the check says about data before anything is started: every wrong entry at once, in seconds."""

import json
from pathlib import Path

import pytest
from PIL import Image

from flowtuner.engine.preflight import inspect_run
from flowtuner.engine.run import DATA_KEYS_VARIABLE, RunSpec
from flowtuner.errors import ConfigError
from flowtuner.options import load

KEYS = {"aws_access_key_id": "AKIACANARY", "aws_secret_access_key": "nobody-may-see-this"}


def with_entries(values: dict, *changes: dict) -> dict:
    """The run with entries made of the tiny one's first."""
    path = Path(values["data_backend_config"])
    first, texts = json.loads(path.read_text())
    path.write_text(json.dumps([*(first | change for change in changes), texts]))
    return values


def data_findings(values: dict) -> list[str]:
    findings = inspect_run(load(values=values, environ={}))
    return [str(finding) for finding in findings if finding.level == "error"]


def test_all_that_is_wrong_with_the_data_is_said_at_once(tiny_run, tmp_path):
    (tmp_path / "t.csv").write_text("filename,words\na.png,x\n")
    (tmp_path / "u.csv").write_text("address\nhttp://127.0.0.1/x.png\n")
    values = with_entries(
        tiny_run,
        {"id": "table", "caption_strategy": "csv", "parquet": {"path": str(tmp_path / "t.csv")}},
        {"id": "urls", "type": "csv", "csv_file": str(tmp_path / "u.csv"), "caption_strategy": "csv"},
        {"id": "far", "type": "aws", "aws_bucket_name": "b", "aws_endpoint_url": "nonsense"} | KEYS,
    )
    said = data_findings(values)
    assert len(said) == 3 and "nobody-may-see" not in str(said)
    assert "no column caption" in said[0] and "no column url" in said[1] and "aws_endpoint_url" in said[2]


def test_a_schedule_that_ends_before_the_run_is_said_at_once(tiny_run):
    (said,) = data_findings(with_entries(tiny_run, {"end_step": 3}))
    assert "no dataset is in use" in said and "end_step" in said


def test_missing_captions_are_named(tiny_run, pictures):
    (said,) = data_findings(with_entries(tiny_run, {"caption_strategy": "textfile"}))
    assert "none of the 16 pictures can be used" in said and ".txt is missing" in said


def test_small_buckets_are_named(tiny_run, pictures):
    Image.new("RGB", (64, 32)).save(pictures / "wide.png")
    (said,) = data_findings(tiny_run)
    assert "bucket 64x32 holds 1 picture" in said and "Set repeats to at least 1" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parquet": {"path": "x", "caption_colum": "c"}}, "Did you mean caption_column?"),
        ({"huggingface": {"datasets": "x"}}, "Did you mean dataset_name?"),
        ({"type": "aws"}, "aws_bucket_name: is required with type=aws"),
        ({"type": "huggingface"}, "dataset_name: is required with type=huggingface"),
        ({"type": "csv", "csv_file": "nowhere.csv"}, "csv_file: does not exist"),
        ({"aws_access_key_id": "x"}, "aws_secret_access_key: is missing beside its other half"),
        ({"caption_strategy": "jsonl"}, "needs a table of captions"),
        ({"caption_strategy": "huggingface"}, "needs type=huggingface"),
        ({"type": "csv", "csv_file": "here.csv", "caption_strategy": "textfile"}, "csv or instanceprompt"),
        ({"instance_data_dri": "x"}, "Did you mean instance_data_dir?"),
        ({"caption_strategy": "textfiel"}, "Did you mean textfile?"),
    ],
)
def test_wrong_keys_and_values_say_what_is_right(tiny_run, tmp_path, monkeypatch, change, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.csv").write_text("url\nhttp://127.0.0.1/x\n")
    with pytest.raises(ConfigError) as caught:
        load(values=with_entries(tiny_run, change), environ={})
    assert words in str(caught.value)


def test_keys_of_a_bucket_are_in_no_file(tiny_run, tmp_path):
    entry = {"id": "far", "type": "aws", "aws_bucket_name": "b"} | KEYS
    spec = RunSpec("run", load(values=with_entries(tiny_run, entry), environ={}), tmp_path)
    path = tmp_path / "run.json"
    spec.save(path)
    assert "nobody" not in path.read_text() and "CANARY" not in path.read_text()
    assert RunSpec.load(path, spec.environment()) == spec
    assert RunSpec.load(path).loaded.datasets[0].aws_secret_access_key is None
    assert list(spec.environment()) == [DATA_KEYS_VARIABLE]
    assert "nobody" not in json.dumps(spec.loaded.redacted(), default=str)
