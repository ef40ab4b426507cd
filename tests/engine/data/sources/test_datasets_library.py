"""Rows of the datasets library: from parquet, from an arrow folder, streamed; all offline."""

import io

import numpy as np
import pytest
from PIL import Image

from flowtuner.engine.data.images import load_pixels
from flowtuner.engine.data.sources import open_source
from flowtuner.errors import DataError


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    import datasets

    datasets.disable_progress_bars()
    folder = tmp_path_factory.mktemp("rows")
    pictures = []
    for number in range(4):
        data = io.BytesIO()
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (32, 40, 3), dtype=np.uint8)).save(data, "PNG")
        pictures.append({"bytes": data.getvalue(), "path": None})
    table = datasets.Dataset.from_dict(
        {"image": pictures, "caption": ["a dog", None, ["one", "two"][0], "a cat"]},
        features=datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")}),
    )
    table.save_to_disk(str(folder / "arrow"))
    (folder / "parquet").mkdir()
    table.to_parquet(str(folder / "parquet" / "train-00000.parquet"))
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def entry_of(make_entry, folder, **values):
    return make_entry(
        type="huggingface", dataset_name=str(folder), caption_strategy="huggingface", instance_data_dir=None, **values
    )


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("arrow", {}),
        ("parquet", {}),
        ("parquet", {"streaming": True}),
        ("parquet", {"huggingface": {"split": "train"}}),
    ],
    ids=["arrow", "parquet", "streamed", "nested"],
)
def test_rows_are_pictures_with_captions(tmp_path, rows, make_entry, make_config, scan, kind, values):
    entry = entry_of(make_entry, rows / kind, **values)
    found = scan(entry)
    assert sorted(sample.captions for sample in found.samples) == [("a cat",), ("a dog",), ("one",)]
    assert "no caption" in found.quarantined[0].reason
    assert scan(entry) == found
    source = open_source(entry, make_config(), tmp_path / "index")
    for sample in found.samples:
        assert load_pixels(sample, lambda one: source.read(one.path)).shape == (3, 32, 40)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"split": "test"}, "cannot be opened"),
        ({"image_column": "picture"}, "has no column picture. It has: image, caption"),
        ({"caption_column": "text"}, "has no column text"),
    ],
)
def test_what_is_not_there_is_found_by_a_look(tmp_path, rows, make_entry, make_config, values, words):
    with pytest.raises(DataError, match=words):
        open_source(entry_of(make_entry, rows / "parquet", **values), make_config(), tmp_path).check()


def test_a_builder_script_says_what_to_do(tmp_path, make_entry, make_config):
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text("raise SystemExit")
    with pytest.raises(DataError, match="save its rows as parquet"):
        open_source(entry_of(make_entry, tmp_path / "script"), make_config(), tmp_path).check()
