"""Where values come from, which one wins, and what each remembers."""

import json
from pathlib import Path

import pytest

from flowtuner.errors import ConfigError
from flowtuner.options import LoadedConfig, load
from tests.options.conftest import write_json


def test_later_sources_win_and_every_value_knows_its_origin(desk, least):
    write_json(
        desk / "config/demo/config.json", least | {"seed": 1, "lora_rank": 1, "train_batch_size": 1, "lr_power": 1}
    )
    loaded = load(
        env="demo",
        flags=["--train_batch_size=3", "--seed", "3"],
        values={"--seed": 4},
        environ={"CONFIG_BACKEND": "json", "LORA_RANK": "2"},
    )
    config = loaded.config
    assert (config.seed, config.train_batch_size, config.lora_rank, config.learning_rate) == (4, 3, 1, 4e-7)
    assert str(loaded.origin("seed")) == "values"
    assert str(loaded.origin("train_batch_size")) == "flag --train_batch_size"
    assert str(loaded.origin("lora_rank")) == "config/demo/config.json, line 8"
    assert str(loaded.origin("learning_rate")) == "default"


def test_environment_backend_reads_simpletuners_names_over_the_file(desk, least):
    lines = [f"export {name.upper()}={value}" for name, value in least.items() if name != "max_train_steps"]
    text = "\n".join(["# comment", *lines, "MAX_NUM_STEPS='20'", "TRAINING_SEED=7", "UNRELATED=1"])
    (desk / "config/demo/config.env").write_text(text)
    loaded = load(environ={"ENV": "demo", "CONFIG_BACKEND": "env", "TRAINING_SEED": "9", "HOME": "/"})
    assert (loaded.config.max_train_steps, loaded.config.seed) == (20, 9)
    assert str(loaded.origin("seed")) == "environment variable TRAINING_SEED"
    assert str(loaded.origin("max_train_steps")) == "config/demo/config.env, line 6"


def test_toml_is_read_with_lines(desk, least):
    text = "\n".join(f"{name} = {json.dumps(value)}" for name, value in least.items())
    (desk / "config/demo/config.toml").write_text(text)
    loaded = load(env="demo", environ={"CONFIG_BACKEND": "toml"})
    assert loaded.config.max_train_steps == 10
    assert str(loaded.origin("max_train_steps")) == "config/demo/config.toml, line 5"


def test_backend_is_found_by_the_file_that_is_there(desk, least):
    text = "\n".join(f"{name} = {json.dumps(value)}" for name, value in least.items())
    (desk / "config/demo/config.toml").write_text(text)
    assert load(env="demo", environ={}).config.max_train_steps == 10


def test_config_file_anywhere_finds_its_dataloader_beside_it(desk, least, tmp_path):
    folder = tmp_path / "elsewhere"
    write_json(folder / "near.json", [{"id": "pictures", "instance_data_dir": str(desk / "pictures")}])
    path = write_json(folder / "mine.json", least | {"data_backend_config": "near.json"})
    loaded = load(config_file=path, environ={})
    assert loaded.config.data_backend_config == folder / "near.json"


def test_default_environment_is_the_config_folder_itself(desk, least):
    write_json(desk / "config/config.json", least)
    assert load(environ={}).config.max_train_steps == 10
    assert load(environ={"ENV": "default"}).config.max_train_steps == 10


def test_values_stand_alone(desk, least):
    write_json(desk / "config/config.json", least | {"seed": 3})
    assert load(values=least, environ={"ENV": "demo"}).config.seed is None


def test_command_backend_reads_no_file(desk, least):
    write_json(desk / "config/config.json", {"seed": 3})
    flags = [f"--{name}={value}" for name, value in least.items()]
    assert load(flags=flags, environ={"CONFIG_BACKEND": "cmd"}).config.seed is None


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--use_ema"], True),
        (["--use_ema=true"], True),
        (["--use_ema", "true"], True),
        (["--use_ema", "--seed=1"], True),
        (["--use_ema=false"], False),
        (["--use_ema", "false"], False),
        (["--use-ema"], True),
        (["--use_ema=True"], True),
        (["--use_ema=false", "--use_ema=true"], True),
    ],
)
def test_switches(desk, least, flags, expected):
    assert load(flags=flags, values=least, environ={}).config.use_ema is expected


@pytest.mark.parametrize("value", [False, "false", "False", "0", "no", 0])
def test_false_turns_off_what_is_on_by_default(desk, least, value):
    assert load(values=least | {"gradient_checkpointing": value}, environ={}).config.gradient_checkpointing is False


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--seed"], "seed: needs a value; from flag --seed; Write --seed=..."),
        (["--seed", "--use_ema"], "seed: needs a value"),
        (["seed=1"], "seed=1: is no flag; from command line; Write --seed=1."),
        (["oops"], "oops: is no flag"),
        (["--sead=1"], "sead: is no known option; from flag --sead; Did you mean seed?"),
        (["--seed=x"], "seed: is not a whole number; got 'x'; from flag --seed; allowed: a whole number from -1"),
    ],
)
def test_broken_flags(desk, least, flags, problem):
    with pytest.raises(ConfigError) as caught:
        load(flags=flags, values=least, environ={})
    assert problem in str(caught.value)


def test_flag_values_may_be_negative_and_may_hold_equals_signs(desk, least):
    flags = ["--seed", "-1", "--optimizer_config=weight_decay=0.1,eps=1e-8"]
    config = load(flags=flags, values=least, environ={}).config
    assert config.seed == -1
    assert config.optimizer_config == "weight_decay=0.1,eps=1e-8"


@pytest.mark.parametrize(
    ("legacy", "value", "option", "expected"),
    [
        ("save_total_limit", 3, "checkpoints_total_limit", 3),
        ("--validation_steps", "25", "validation_step_interval", 25),
        ("checkpointing_steps", 50, "checkpoint_step_interval", 50),
        ("vae_cache_preprocess", False, "vae_cache_ondemand", True),
        ("vae_cache_preprocess", "true", "vae_cache_ondemand", False),
        ("ignore_final_epochs", "true", "strict_epoch_limit", False),
        ("ignore_final_epochs", "false", "strict_epoch_limit", True),
        ("project_name", "mine", "tracker_project_name", "mine"),
        ("maximum_caption_length", 77, "tokenizer_max_length", 77),
    ],
)
def test_old_names_are_mapped_with_a_warning(desk, least, legacy, value, option, expected):
    loaded = load(values=least | {legacy: value}, environ={})
    assert getattr(loaded.config, option) == expected
    assert len(loaded.warnings) == 1
    assert legacy.lstrip("-") in loaded.warnings[0]
    assert option in loaded.warnings[0]


@pytest.mark.parametrize(
    "key", ["__active_tab__", "--__disabled_fields__", "aspect_ratio_bucketing", "aspect_ratio_bucketing_x", "repeats",
            "ez_model_type", "_comment", "$schema"]
)  # fmt: skip
def test_keys_of_forms_are_dropped_silently(desk, least, key):
    assert load(values=least | {key: "x"}, environ={}).warnings == ()


def test_none_says_nothing_and_an_empty_text_clears(desk, least):
    write_json(desk / "config/demo/config.json", least | {"seed": 3, "resume_from_checkpoint": "latest", "lr_power": 2})
    values = {"seed": None, "resume_from_checkpoint": "", "lr_power": "", "validation_negative_prompt": ""}
    config = load(env="demo", values=values, environ={}).config
    assert (config.seed, config.resume_from_checkpoint, config.lr_power) == (3, None, 0.8)
    assert config.validation_negative_prompt == ""


def test_same_option_twice_in_one_file_is_a_fault_unless_both_agree(desk, least):
    write_json(desk / "config/demo/config.json", least | {"--seed": 1, "seed": 1})
    assert load(env="demo", environ={}).config.seed == 1
    write_json(desk / "config/demo/config.json", least | {"--seed": 1, "seed": 2})
    with pytest.raises(ConfigError, match=r"seed: is given twice; config/demo/config.json, line 7 says 1; got 2"):
        load(env="demo", environ={})


def test_environment_placeholders_are_filled_at_any_depth(desk, least):
    write_json(desk / "data.json", [{"id": "pictures", "instance_data_dir": "{env:ROOT}/pictures"}])
    values = least | {
        "validation_prompt": "a {env:WORD} b",
        "publishing_config": {"provider": "s3", "deep": [{"secret_key": "{env:KEY}"}]},
    }
    loaded = load(values=values, environ={"ROOT": str(desk), "WORD": "cat", "KEY": "k"})
    assert loaded.config.validation_prompt == "a cat b"
    assert loaded.config.publishing_config == [{"provider": "s3", "deep": [{"secret_key": "k"}]}]
    assert loaded.datasets[0].instance_data_dir == desk / "pictures"


def test_unset_variables_are_faults_everywhere(desk, least):
    write_json(desk / "data.json", [{"id": "pictures", "instance_data_dir": "{env:ROOT}/pictures"}])
    write_json(desk / "publishing.json", [{"provider": "s3", "secret_key": "{env:KEY}"}])
    values = least | {"validation_prompt": "{env:WORD}", "publishing_config": "publishing.json"}
    with pytest.raises(ConfigError) as caught:
        load(values=values, environ={})
    text = str(caught.value)
    assert "validation_prompt: names the environment variable WORD, which is not set; got '{env:WORD}'" in text
    assert "publishing_config: names the environment variable KEY, which is not set" in text
    assert "pictures.instance_data_dir: names the environment variable ROOT, which is not set" in text
    assert "data.json, line 4" in text


def test_unknown_environment_names_the_known_ones(desk, least):
    write_json(desk / "config/demo/config.json", least)
    with pytest.raises(ConfigError) as caught:
        load(env="demos", environ={})
    assert "env: has no configuration: config/demos/config.json does not exist; got 'demos'" in str(caught.value)
    assert "allowed: demo; Did you mean demo?" in str(caught.value)


def test_unknown_backend_and_missing_file_are_faults(desk, least):
    with pytest.raises(ConfigError, match=r"CONFIG_BACKEND: is no backend; got 'yaml'.*allowed: json, toml, env, cmd"):
        load(values=least, environ={"CONFIG_BACKEND": "yaml"})
    with pytest.raises(ConfigError, match=r"config: does not exist; got 'absent.json'"):
        load(config_file=Path("absent.json"), environ={})


def test_round_trip_through_json(desk, least):
    values = least | {"publishing_config": {"provider": "folder", "path": "x"}, "lora_alpha": 3, "save_total_limit": 2}
    loaded = load(values=values, flags=["--seed=4"], environ={})
    assert LoadedConfig.from_json(json.loads(json.dumps(loaded.to_json()))) == loaded


def test_secrets_are_hidden_where_configurations_are_shown(desk, least):
    entry = {"provider": "s3", "bucket": "b", "access_key": "AKIA", "secret_key": "S", "request_headers": {"a": "T"}}
    webhook = {"webhook_type": "raw", "callback_url": "https://h/x?token=U"}
    loaded = load(values=least | {"publishing_config": entry, "webhook_config": [webhook]}, environ={})
    shown = json.dumps(loaded.redacted())
    assert '"bucket": "b"' in shown
    assert not [secret for secret in ("AKIA", '"S"', '"T"', "token=U") if secret in shown]


def test_an_env_file_is_read_as_a_shell_reads_it(desk, least):
    lines = [f"export {name.upper()}='{value}' # why" for name, value in least.items() if name != "max_train_steps"]
    extra = 'TRAINER_EXTRA_ARGS="--max_train_steps=9 --use_ema"  # more'
    (desk / "config/demo/config.env").write_text("\n".join([*lines, extra, "TRAINING_SEED=7 # a comment"]))
    loaded = load(environ={"ENV": "demo", "CONFIG_BACKEND": "env"})
    assert (loaded.config.max_train_steps, loaded.config.use_ema, loaded.config.seed) == (9, True, 7)


def test_sizes_of_zero_mean_no_limit_as_in_simpletuners_examples(desk, least):
    config = load(values=least | {"minimum_image_size": 0, "maximum_image_size": 0, "target_downsample_size": 0}).config
    assert (config.minimum_image_size, config.maximum_image_size) == (0, 0)
