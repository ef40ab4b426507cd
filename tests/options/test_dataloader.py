"""The dataloader file: what is read from it, what is made up, and what is refused."""

import json

import pytest

from flowtuner.errors import ConfigError
from flowtuner.options import DatasetEntry, load
from tests.options.conftest import write_json

TEXTS = {"id": "texts", "dataset_type": "text_embeds", "default": True, "cache_dir": "texts"}

BAD_ENTRIES = [
    ({"crop_styl": "random"}, ["a.crop_styl: is no known key of a dataset entry", "Did you mean crop_style?"]),
    ({"disable_vae_cache": True}, ["a.disable_vae_cache: is no known key", "Did you mean vae_cache_disable?"]),
    ({"caption_strategy": "filenam"}, ["a.caption_strategy: is not one of the choices", "Did you mean filename?"]),
    ({"type": "locl"}, ["a.type: is not one of the choices; got 'locl'", "Did you mean local?"]),
    ({"dataset_type": "imag"}, ["a.dataset_type: is not one of the choices", "Did you mean image?"]),
    ({"repeats": -1}, ["a.repeats: is too small; got -1", "allowed: a whole number from 0"]),
    ({"repeats": "many"}, ["a.repeats: is not a whole number; got 'many'"]),
    ({"repeats": True}, ["a.repeats: cannot be true or false"]),
    ({"probability": -0.5}, ["a.probability: is too small", "allowed: a number above 0"]),
    ({"probability": 0}, ["a.probability: is too small"]),
    ({"instance_data_dir": "absent"}, ["a.instance_data_dir: does not exist", "an existing folder", "does exist."]),
    ({"instance_data_dir": "data.json"}, ["a.instance_data_dir: is a file"]),
    ({"instance_data_dir": None}, ["a.instance_data_dir: is required"]),
    ({"resolution": 1024, "resolution_type": "area"}, ["a.resolution: looks like pixels, but resolution_type=area"]),
    ({"resolution": 1, "resolution_type": "pixel"}, ["a.resolution: looks like megapixels"]),
    ({"resolution": 0}, ["a.resolution: is too small"]),
    ({"resolution_type": "pixels"}, ["a.resolution_type: is not one", "Did you mean pixel?"]),
    ({"maximum_image_size": 1024}, ["a.maximum_image_size: needs target_downsample_size too"]),
    (
        {"maximum_image_size": 1024, "target_downsample_size": 2048},
        ["a.target_downsample_size: is larger than maximum_image_size=1024"],
    ),
    (
        {"minimum_image_size": 2.0, "maximum_image_size": 1024, "target_downsample_size": 1024},
        ["a.minimum_image_size: is larger than maximum_image_size=1024"],
    ),
    ({"minimum_aspect_ratio": 2, "maximum_aspect_ratio": 1}, ["a.minimum_aspect_ratio: is larger than"]),
    ({"crop_style": "middle"}, ["a.crop_style: is not one", "allowed: random, corner, center, face"]),
    ({"crop_aspect": "squared"}, ["a.crop_aspect: is not one", "Did you mean square?"]),
    ({"crop": True, "crop_aspect": "closest"}, ["a.crop_aspect: needs crop_aspect_buckets too"]),
    ({"crop": True, "crop_aspect": "random", "crop_aspect_buckets": []}, ["a.crop_aspect: needs crop_aspect_buckets"]),
    ({"crop_aspect_buckets": [1.0, -1]}, ["a.crop_aspect_buckets: has an aspect ratio that is not above 0"]),
    ({"crop_aspect_buckets": [{"aspect_bucket": 1, "weight": 0}]}, ["a.crop_aspect_buckets: has no weight above 0"]),
    ({"crop_aspect_buckets": [{"weight": 1}]}, ["a.crop_aspect_buckets[1]"]),
    ({"crop": "sometimes"}, ["a.crop: is neither true nor false"]),
    ({"caption_strategy": "instanceprompt"}, ["a.caption_strategy: needs an instance_prompt"]),
    ({"prepend_instance_prompt": True}, ["a.instance_prompt: needs an instance_prompt"]),
    ({"caption_strategy": "parquet"}, ["a.caption_strategy: needs metadata_backend=parquet"]),
    ({"conditioning_data": "b"}, ["a.conditioning_data: names 'b', which no entry has as its id"]),
    ({"conditioning_data": ["texts"]}, ["a.conditioning_data: names 'texts', which has dataset_type text_embeds"]),
    ({"text_embeds": "absent"}, ["a.text_embeds: names 'absent', which no entry has", "allowed: texts"]),
    ({"train_batch_size": 0}, ["a.train_batch_size: is too small"]),
    ({"start_step": 1, "end_step": -1}, ["a.end_step: is too small"]),
    ({"caption_shuffle": {"count": 0}}, ["a.caption_shuffle.count: is too small; got 0", "a whole number from 1"]),
    ({"start_epoch": 2}, ["a.start_epoch: leaves the run without a dataset at its start"]),
    ({"video": {"num_frames": 9, "min_frames": 3}}, ["a.video: has min_frames=3 below num_frames=9"]),
    ({"caption_shuffle": {"coun": 3}}, ["a.caption_shuffle.coun: is no known key"]),
    ({"max_num_samples": 0}, ["a.max_num_samples: is too small"]),
    ({"cache_dir_vae": 3}, ["a.cache_dir_vae: is not a path"]),
    ({"disabled": True}, ["data_backend_config: holds no dataset to train on"]),
    ({"id": ""}, ["entry 1.id: is required"]),
    ({"id": None}, ["entry 1.id: is required"]),
]


def load_entries(desk, least, entries, **values):
    write_json(desk / "data.json", entries)
    return load(values=least | values, environ={})


@pytest.mark.parametrize(("changes", "parts"), BAD_ENTRIES, ids=lambda value: json.dumps(value)[:60])
def test_bad_entries_say_what_is_wrong_and_where(desk, least, changes, parts):
    entry = {"id": "a", "instance_data_dir": "pictures"} | changes
    with pytest.raises(ConfigError) as caught:
        load_entries(desk, least, [entry, TEXTS])
    for part in parts:
        assert part in str(caught.value)
    assert "data.json" in str(caught.value)
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    ("entries", "parts"),
    [
        ([], ["data_backend_config: is no list of dataset entries"]),
        ("text", ["data_backend_config: is no list of dataset entries"]),
        ([3], ["entry 1: is no object; got 3"]),
        ([TEXTS], ["data_backend_config: holds no dataset to train on"]),
        (
            [{"id": "a", "instance_data_dir": "pictures"}, {"id": "a", "instance_data_dir": "pictures"}],
            ["a.id: is used by 2 entries"],
        ),
        (
            [{"id": "a", "instance_data_dir": "pictures"}, TEXTS, TEXTS | {"id": "more"}],
            ["more.default: is true here and in texts"],
        ),
        (
            [
                {"id": "a", "instance_data_dir": "pictures"},
                TEXTS | {"default": False},
                TEXTS | {"id": "more", "default": False},
            ],
            ["texts.default: is true in none of the text_embeds entries"],
        ),
        (
            [
                {"id": "a", "instance_data_dir": "pictures", "conditioning_data": "r"},
                {"id": "r", "dataset_type": "conditioning", "instance_data_dir": "pictures", "disabled": True},
            ],
            ["a.conditioning_data: names 'r', which is disabled"],
        ),
        (
            [
                {"id": "a", "instance_data_dir": "pictures"},
                {
                    "id": "r",
                    "dataset_type": "conditioning",
                    "instance_data_dir": "pictures",
                    "conditioning_type": "reference_strict",
                },
            ],
            ["r.conditioning_type: needs a source"],
        ),
    ],
)
def test_entries_that_do_not_fit_together(desk, least, entries, parts):
    with pytest.raises(ConfigError) as caught:
        load_entries(desk, least, entries)
    for part in parts:
        assert part in str(caught.value)
    assert len(caught.value.faults) == 1


def test_faults_of_entries_name_the_line(desk, least):
    with pytest.raises(ConfigError, match=r"a.repeats: is too small; got -1; from data.json, line 5"):
        load_entries(desk, least, [{"id": "a", "instance_data_dir": "pictures", "repeats": -1}])


def test_missing_keys_name_the_line_of_their_entry(desk, least):
    (desk / "data.json").write_text('[\n  {"id": "a"},\n  {"type": "local"}\n]')
    with pytest.raises(ConfigError) as caught:
        load(values=least, environ={})
    assert "a.instance_data_dir: is required; from data.json, line 2" in str(caught.value)
    assert "entry 2.id: is required; from data.json, line 3" in str(caught.value)


def test_broken_json_names_line_and_column(desk, least):
    (desk / "data.json").write_text('[\n  {"id": "a",}\n]')
    with pytest.raises(
        ConfigError, match=r"data_backend_config: is not JSON: .* from data.json, line 2, column 1\d|14"
    ):
        load(values=least, environ={})


def test_entries_take_what_they_do_not_say_from_the_options(desk, least):
    entries = [
        {"id": "a", "instance_data_dir": "pictures"},
        {"id": "b", "instance_data_dir": "pictures", "resolution": 64, "caption_strategy": "textfile"},
    ]
    options = {"resolution": 512, "resolution_type": "pixel", "caption_strategy": "filename", "cache_dir_vae": "v/{id}"}
    a, b, _ = load_entries(desk, least, entries, **options).datasets
    assert (a.resolution, a.resolution_type, a.caption_strategy) == (512, "pixel", "filename")
    assert (b.resolution, b.resolution_type, b.caption_strategy) == (64, "pixel", "textfile")
    assert (a.cache_dir_vae, b.cache_dir_vae) == (desk / "v/a", desk / "v/b")


def test_an_inherited_unit_that_does_not_fit_is_found(desk, least):
    entries = [{"id": "a", "instance_data_dir": "pictures", "resolution_type": "area"}]
    with pytest.raises(ConfigError, match=r"a.resolution: looks like pixels, but resolution_type=area"):
        load_entries(desk, least, entries)


def test_text_embeddings_have_a_default_place(desk, least):
    _, texts = load_entries(desk, least, [{"id": "a", "instance_data_dir": "pictures"}]).datasets
    assert (texts.dataset_type, texts.default, texts.cache_dir) == ("text_embeds", True, desk / "output/cache/text")
    sole = [{"id": "a", "instance_data_dir": "pictures"}, TEXTS | {"default": False}]
    _, texts = load_entries(desk, least, sole).datasets
    assert (texts.id, texts.default, texts.cache_dir) == ("texts", True, desk / "texts")


def test_disabled_entries_are_left_out_unexamined(desk, least):
    entries = [
        {"id": "a", "instance_data_dir": "pictures"},
        {"id": "b", "instance_data_dir": "gone", "disable": "true"},
    ]
    assert [entry.id for entry in load_entries(desk, least, entries).datasets] == ["a", "text-embeds"]


def test_spellings_of_keys_and_values(desk, least):
    entry = {
        "id": "a",
        "instance_data_dir": "pictures",
        "caption_strategy": "instance_prompt",
        "instance_prompt": ["one", "two"],
        "metadata_backend": "json",
        "crop": "true",
        "crop_style": "centre",
        "crop_aspect": "closest",
        "crop_aspect_buckets": [1.0, {"aspect_bucket": 0.75, "weight": 2}],
        "is_regularization_data": False,
        "_comment": "mine",
        "maximum_image_size": 4.0,
        "target_downsample_size": 1024,
        "repeats": "3",
        "disable_validation": "false",
    }
    a, _ = load_entries(desk, least, [entry]).datasets
    assert (a.caption_strategy, a.metadata_backend, a.crop, a.crop_style) == (
        "instanceprompt",
        "discovery",
        True,
        "center",
    )
    assert (a.instance_prompt, a.repeats, a.disable_validation) == (["one", "two"], 3, False)
    assert a.crop_aspect_buckets[1].weight == 2


def test_relative_folders_are_meant_from_here_or_from_beside_the_file(desk, least):
    (desk / "config/demo/near").mkdir()
    entries = [{"id": "a", "instance_data_dir": "pictures"}, {"id": "b", "instance_data_dir": "near"}]
    write_json(desk / "config/demo/data.json", entries)
    a, b, _ = load(values=least | {"data_backend_config": "demo/data.json"}, environ={}).datasets
    assert (a.instance_data_dir, b.instance_data_dir) == (desk / "pictures", desk / "config/demo/near")


def test_entries_may_be_given_without_a_file(desk, least):
    entries = [{"id": "a", "instance_data_dir": "pictures"}]
    loaded = load(values=least | {"data_backend_config": entries}, environ={})
    assert loaded.config.data_backend_config is None
    assert loaded.datasets[0].id == "a"
    flag = f"--data_backend_config={json.dumps(entries)}"
    assert load(values=least, flags=[flag], environ={}).datasets[0].id == "pictures"
    with pytest.raises(ConfigError, match=r"a.repeats: is too small; got -1; from values"):
        load(values=least | {"data_backend_config": [entries[0] | {"repeats": -1}]}, environ={})


def test_other_backends_load_and_are_named_as_having_no_effect_yet(desk, least):
    entries = [
        {"id": "a", "instance_data_dir": "pictures", "start_step": 0},
        {
            "id": "s3",
            "type": "aws",
            "aws_bucket_name": "b",
            "aws_data_prefix": "p",
        },
        {"id": "shards", "type": "webshart"},
    ]
    loaded = load_entries(desk, least, entries)
    assert "shards: type=webshart" in loaded.accepted_only()
    assert not [name for name in loaded.accepted_only() if name.startswith("s3")]
    assert not [name for name in loaded.accepted_only() if name.startswith("text-embeds")]


def test_an_entry_alone_needs_only_its_id():
    entry = DatasetEntry(id="a")
    assert (entry.type, entry.dataset_type, entry.repeats, entry.probability) == ("local", "image", 0, 1.0)
