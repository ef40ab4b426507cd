"""Broken options: every fault in one list, each with option, value, origin, what is allowed and a suggestion."""

import contextlib
import json

import pytest

from flowtuner.errors import ConfigError
from flowtuner.options import DatasetEntry, TrainingConfig, load, suggest
from tests.options.conftest import write_json

LYCORIS = {"algo": "lokr", "multiplier": 1.0, "linear_alpha": 1, "full_matrix": True}
BAD_VALUES = [
    ({"model_family": "pixrt"}, ["model_family: is not one of the choices; got 'pixrt'", "Did you mean pixart_sigma?"]),
    ({"model_family": ""}, ["model_family: is required"]),
    ({"model_type": "lorra"}, ["model_type: is not one of the choices", "allowed: full, lora", "Did you mean lora?"]),
    ({"learning_rate": -1}, ["learning_rate: is too small; got -1; from values; allowed: a number above 0"]),
    ({"learning_rate": 0}, ["learning_rate: is too small"]),
    ({"learning_rate": "fast"}, ["learning_rate: is not a number; got 'fast'"]),
    ({"learning_rate": float("nan")}, ["learning_rate: is not a finite number"]),
    ({"learning_rate": "inf"}, ["learning_rate: is not a finite number"]),
    ({"learning_rate": True}, ["learning_rate: cannot be true or false"]),
    ({"learning_rate": [1]}, ["learning_rate: is not a number"]),
    ({"lora_rank": 0}, ["lora_rank: is too small; got 0; from values; allowed: a whole number from 1 up to 4096"]),
    ({"lora_rank": 1.5}, ["lora_rank: is not a whole number; got 1.5"]),
    ({"lora_dropout": 1.5}, ["lora_dropout: is too large", "a number from 0 below 1"]),
    ({"train_batch_size": 0}, ["train_batch_size: is too small"]),
    ({"train_batch_size": "two"}, ["train_batch_size: is not a whole number; got 'two'"]),
    ({"gradient_accumulation_steps": 0}, ["gradient_accumulation_steps: is too small"]),
    ({"max_train_steps": "abc"}, ["max_train_steps: is not a whole number; got 'abc'"]),
    ({"max_train_steps": -5}, ["max_train_steps: is too small"]),
    ({"max_train_steps": 5, "num_train_epochs": 2}, ["max_train_steps: and num_train_epochs=2 both say"]),
    ({"max_train_steps": 0, "num_train_epochs": 0}, ["max_train_steps: and num_train_epochs are both 0"]),
    ({"lr_warmup_steps": 11}, ["lr_warmup_steps: is longer than the run of 10 steps; got 11", "allowed: 0 to 10"]),
    ({"lr_scheduler": "cosin"}, ["lr_scheduler: is not one of the choices", "Did you mean cosine?"]),
    ({"optimizer": "adafactor"}, ["optimizer: is not one", "SimpleTuner removed it; use optimi-stableadamw."]),
    ({"optimizer": "adamw_bf17"}, ["Did you mean adamw_bf16?"]),
    ({"optimizer_beta1": 0.9}, ["optimizer_beta1: needs optimizer_beta2 too"]),
    ({"optimizer_config": "weight_decay"}, ["optimizer_config: has a part that is no setting: 'weight_decay'"]),
    (
        {"mixed_precision": "bf61"},
        ["mixed_precision: is not one", "allowed: no, fp16, bf16, fp8", "Did you mean bf16?"],
    ),
    ({"base_model_precision": "int9-quanto"}, ["base_model_precision: is not one", "Did you mean int8-quanto?"]),
    ({"use_ema": "perhaps"}, ["use_ema: is neither true nor false; got 'perhaps'", "allowed: true or false"]),
    ({"ema_decay": 1}, ["ema_decay: is too large"]),
    ({"caption_dropout_probability": 2}, ["caption_dropout_probability: is too large", "a number from 0 up to 1"]),
    ({"caption_strategy": "filenames"}, ["caption_strategy: is not one", "Did you mean filename?"]),
    ({"resolution": -1}, ["resolution: is too small"]),
    ({"resolution": 1.0}, ["resolution: looks like megapixels, but resolution_type=pixel_area means pixels"]),
    ({"resolution": 512, "resolution_type": "area"}, ["resolution: looks like pixels, but resolution_type=area"]),
    ({"maximum_image_size": 1024}, ["maximum_image_size: needs target_downsample_size too"]),
    ({"validation_resolution": "big"}, ["validation_resolution: has a part that is no size: 'big'"]),
    ({"validation_resolution": "512x"}, ["validation_resolution: has a part that is no size: '512x'"]),
    ({"validation_method": "external-script"}, ["validation_method: needs validation_external_script too"]),
    ({"validation_adapter_path": "a", "validation_adapter_config": "b"}, ["excludes validation_adapter_config"]),
    ({"aspect_bucket_alignment": 7}, ["aspect_bucket_alignment: is not one", "allowed: 8, 16, 24, 32, 64"]),
    ({"timestep_bias_portion": 2}, ["timestep_bias_portion: is too large"]),
    ({"metadata_update_interval": 5}, ["metadata_update_interval: is too small", "from 60"]),
    ({"report_to": "wandb,tensorbord"}, ["report_to: knows no 'tensorbord'", "tensorboard"]),
    ({"disk_low_action": "script"}, ["disk_low_action: needs disk_low_script too"]),
    ({"quantization_config": {"a": 1}}, ["quantization_config: needs model_type=lora"]),
    ({"hub_model_id": "a b/c"}, ["hub_model_id: is no repository name; got 'a b/c'"]),
    ({"publishing_config": "[{]"}, ["publishing_config: is not JSON", "from values, line 1, column 3"]),
    ({"publishing_config": "absent.json"}, ["publishing_config: is neither JSON nor an existing file"]),
    ({"publishing_config": "config/publishing.json"}, ["publishing_config: is neither JSON nor an existing file"]),
    ({"publishing_config": [1]}, ["publishing_config: entry 1 is no object"]),
    ({"publishing_config": 3}, ["publishing_config: has no entries in it"]),
    ({"webhook_config": {"webhook_type": "discrod"}}, ["webhook_config[1].webhook_type: is no kind of webhook"]),
    ({"webhook_config": {"webhook_type": "raw"}}, ["webhook_config[1].callback_url: is required"]),
    ({"user_prompt_library": "absent.json"}, ["user_prompt_library: does not exist; got 'absent.json'"]),
    ({"learning_rte": 1}, ["learning_rte: is no known option; from values; Did you mean learning_rate?"]),
    ({"zzzzzz": 1}, ["zzzzzz: is no known option", "`flowtuner config schema` lists all options."]),
    ({"data_backend_config": "absent.json"}, ["data_backend_config: does not exist; got 'absent.json'", "Looked for"]),
    ({"data_backend_config": ""}, ["data_backend_config: is required"]),
    ({"data_backend_config": []}, ["data_backend_config: is required"]),
    (
        {"model_type": "lora", "lora_type": "lycoris", "lycoris_config": "absent.json"},
        ["lycoris_config: does not exist; got 'absent.json'"],
    ),
    (
        {"model_type": "lora", "lora_type": "lycoris", "lycoris_config": {"algo": "lokr"}},
        ["lycoris_config: lacks multiplier, linear_alpha, linear_dim"],
    ),
    *(
        ({"model_type": "lora", "lora_type": "lycoris", "lycoris_config": LYCORIS | wrong}, parts)
        for wrong, parts in (
            ({"algo": "lokrr"}, ["lycoris_config: algo is none that is known; got 'lokrr'", "allowed: lokr, loha"]),
            ({"algo": "dylora"}, ["lycoris_config: algo cannot be trained: it draws another rank"]),
            ({"facto": 4}, ["lycoris_config: facto is no setting; factor is one"]),
            ({"linear_dim": 0}, ["lycoris_config: linear_dim is no size; got 0"]),
            ({"dropout": 2}, ["lycoris_config: dropout is no share; got 2"]),
            ({"full_matrix": "yes"}, ["lycoris_config: full_matrix is no switch; got 'yes'"]),
            ({"linear_alpha": "much"}, ["lycoris_config: linear_alpha is no strength; got 'much'"]),
            ({"apply_preset": ["Attention"]}, ["lycoris_config: apply_preset is no object"]),
            ({"apply_preset": {"targets": []}}, ["apply_preset.targets is no setting; target_"]),
            ({"apply_preset": {"target_module": "Attention"}}, ["apply_preset.target_module is no list of names"]),
            (
                {"apply_preset": {"module_algo_map": {"Attention": {"algo": "x"}}}},
                ["apply_preset.module_algo_map.Attention.algo is none that is known; got 'x'"],
            ),
            ({"apply_preset": {"module_algo_map": []}}, ["apply_preset.module_algo_map is no object of objects"]),
        )
    ),
]


@pytest.mark.parametrize(("values", "parts"), BAD_VALUES, ids=lambda value: json.dumps(value)[:60])
def test_bad_values_say_what_is_wrong(desk, least, values, parts):
    with pytest.raises(ConfigError) as caught:
        load(values=least | values, environ={})
    for part in parts:
        assert part in str(caught.value)
    assert len(caught.value.faults) == 1


def test_all_faults_come_at_once(desk):
    values = {
        "model_type": "lora",
        "output_dir": "out",
        "learning_rate": -1,
        "lora_rank": 0,
        "optimzer": "adamw",
        "lr_warmup_steps": 50,
        "max_train_steps": 5,
        "data_backend_config": [{"id": "a", "instance_data_dir": "absent"}, {"id": "b", "crop_styl": "x"}],
    }
    with pytest.raises(ConfigError) as caught:
        load(values=values, environ={})
    assert {fault.option for fault in caught.value.faults} == {
        "model_family",
        "learning_rate",
        "lora_rank",
        "optimzer",
        "lr_warmup_steps",
        "a.instance_data_dir",
        "b.crop_styl",
    }
    assert "7 mistakes" in str(caught.value)


def test_everything_required_is_named_when_nothing_is_given(desk):
    with pytest.raises(ConfigError) as caught:
        load(environ={})
    assert {fault.option for fault in caught.value.faults} == {
        "model_family",
        "model_type",
        "output_dir",
        "data_backend_config",
    }


@pytest.mark.parametrize(
    ("name", "text", "problem", "where"),
    [
        (
            "config.json",
            '{\n  "seed": 1,\n  "x" 2\n}',
            "config: is not JSON: Expecting ':' delimiter",
            "line 3, column 7",
        ),
        ("config.json", "{", "config: is not JSON", "line 1, column 2"),
        ("config.json", "", "config: is not JSON", "line 1, column 1"),
        ("config.json", "[1]", "config: is no object of options", "config/demo/config.json"),
        ("config.json", "[" * 100_000, "config: is nested too deeply", "config/demo/config.json"),
        ("config.toml", "seed = 1\nx = = 2\n", "config: is not TOML: Invalid value", "line 2, column 5"),
        ("config.toml", "seed = [1,", "config: is not TOML", "line 1"),
    ],
)
def test_broken_files_name_file_line_and_column(desk, name, text, problem, where):
    (desk / "config/demo" / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(env="demo", environ={})
    assert problem in str(caught.value)
    assert where in str(caught.value)


def test_files_that_are_not_text_are_faults(desk):
    (desk / "config/demo/config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ConfigError, match=r"config: is not UTF-8 text; from config/demo/config.json"):
        load(env="demo", environ={})


def test_a_byte_order_mark_does_no_harm(desk, least):
    (desk / "config/demo/config.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(least).encode())
    assert load(env="demo", environ={}).config.max_train_steps == 10


def test_faults_in_files_name_the_line(desk, least):
    write_json(desk / "config/demo/config.json", least | {"publishing_config": {"seed": 1}, "seed": "x"})
    with pytest.raises(
        ConfigError, match=r"seed: is not a whole number; got 'x'; from config/demo/config.json, line 10"
    ):
        load(env="demo", environ={})


def test_secrets_never_stand_in_messages(desk, least):
    values = least | {"publishing_config": [{"provider": "s3", "secret_key": "HUSH"}, "[[{]"], "seed": "x"}
    with pytest.raises(ConfigError) as caught:
        load(values=values, environ={})
    assert "HUSH" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("sead", "seed"),
        ("--learning-rte", "learning_rate"),
        ("checkpointing_step", "checkpoint_step_interval"),
        ("qq", None),
    ],
)
def test_suggestions(written, meant):
    assert suggest(written) == meant


def test_options_are_frozen():
    config = TrainingConfig(model_family="flux", model_type="lora", output_dir="x")
    with pytest.raises(ValueError, match=r"frozen"):
        config.seed = 1


STRANGE = [
    "",
    " ",
    "x",
    "[",
    "[1,",
    "{}",
    "{env:}",
    0,
    -1,
    1e400,
    10**400,
    True,
    "~nobody-here/x",
    [],
    [[]],
    [None],
    {},
    {"a": {}},
    "\x00",
    b"x",
]


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: repr(value)[:20])
def test_strange_values_everywhere_end_in_faults(desk, least, value):
    with pytest.raises(ConfigError):
        load(values=dict.fromkeys(TrainingConfig.model_fields, value), environ={})
    with contextlib.suppress(ConfigError):
        entry = dict.fromkeys(DatasetEntry.model_fields, value)
        load(values=least | {"data_backend_config": [entry]}, environ={})


@pytest.mark.slow
@pytest.mark.parametrize("value", STRANGE, ids=lambda value: repr(value)[:20])
def test_a_strange_value_of_any_option_ends_in_nothing_but_faults(desk, least, value):
    for name in TrainingConfig.model_fields:
        with contextlib.suppress(ConfigError):
            load(values=least | {name: value}, environ={})


@pytest.mark.slow
@pytest.mark.parametrize("value", STRANGE, ids=lambda value: repr(value)[:20])
def test_a_strange_value_of_any_key_of_an_entry_ends_in_nothing_but_faults(desk, least, value):
    for name in DatasetEntry.model_fields:
        entry = {"id": "a", "instance_data_dir": "pictures", name: value}
        with contextlib.suppress(ConfigError):
            load(values=least | {"data_backend_config": [entry]}, environ={})


def faults_of(**sources) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(**{"environ": {}} | sources)
    return [str(fault) for fault in caught.value.faults]


def test_a_key_that_stands_twice_is_a_fault_with_its_line(desk, least):
    text = json.dumps(least)[:-1] + ',\n "train_batch_size": 1,\n "train_batch_size": 8}'
    (desk / "config/demo/config.json").write_text(text)
    assert faults_of(env="demo") == [
        "config: says 'train_batch_size' twice; from config/demo/config.json, line 3; Keep one."
    ]


def test_a_broken_file_is_all_that_is_said(desk):
    (desk / "config/demo/config.json").write_text('{"model_type": ')
    assert len(faults_of(env="demo")) == 1
    assert len(faults_of(env="nowhere")) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"MODEL_TYPE=\xff\xfe", "is not UTF-8 text"),
        (b'TRAINER_EXTRA_ARGS="--validation_prompt=\'open"', "cannot be split into flags"),
        (b"TRAINER_EXTRA_ARGS='--seed=1 stray'", "stray: is no flag; from config/demo/config.env, line 1"),
    ],
)
def test_a_broken_env_file_is_a_fault(desk, content, words):
    (desk / "config/demo/config.env").write_bytes(content)
    assert words in " ".join(faults_of(environ={"ENV": "demo", "CONFIG_BACKEND": "env"}))


def test_a_run_without_end_is_refused_with_a_readable_limit(desk, least):
    (found,) = faults_of(values=least | {"max_train_steps": 10**30})
    assert "up to 100000000" in found
