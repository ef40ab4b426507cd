"""Spellings of values that must be understood, and what they become."""

from pathlib import Path

import pytest

from flowtuner.options import TrainingConfig, load
from flowtuner.options.places import Places, packaged_folders
from tests.options.conftest import write_json

GOOD_VALUES = [
    ("model_family", "pixart", "pixart_sigma"),
    ("model_family", "PixArt-Sigma", "pixart_sigma"),
    ("model_family", "kandinsky5-image", "kandinsky5_image"),
    ("model_family", "cosmos2image", "cosmos"),
    ("base_model_precision", "fp32", "fp32"),
    ("base_model_precision", "no_change", "no_change"),
    ("lr_scheduler", "cosine_with_warmup", "cosine"),
    ("lr_scheduler", "CONSTANT", "constant"),
    ("optimizer", "adamw", "torch-adamw"),
    ("optimizer", "", "adamw_bf16"),
    ("caption_strategy", "instance_prompt", "instanceprompt"),
    ("validation_method", "external_script", None),
    ("validation_resolution", 512, "512"),
    ("validation_resolution", "1024x1024,512", "1024x1024,512"),
    ("validation_prompt_library", "true", True),
    ("validation_prompt_library", "mine", "mine"),
    ("mixed_precision", "", None),
    ("mixed_precision", "NO", "no"),
    ("lora_alpha", "8", 8.0),
    ("lora_rank", "32", 32),
    ("lora_rank", 32.0, 32),
    ("learning_rate", "1e-4", 1e-4),
    ("learning_rate", 1, 1.0),
    ("snr_gamma", None, None),
    ("tracker_run_name", 5, "5"),
    ("lora_target_modules", "to_q, to_k", ["to_q", "to_k"]),
    ("lora_target_modules", '["to_q"]', ["to_q"]),
    ("instance_prompt", "a, b", "a, b"),
    ("instance_prompt", ["a", "b"], ["a", "b"]),
    ("report_to", "wandb, tensorboard", "wandb,tensorboard"),
    ("publishing_config", '{"provider": "s3"}', [{"provider": "s3"}]),
    ("publishing_config", '[{"provider": "s3"}]', [{"provider": "s3"}]),
    ("publishing_config", {"provider": "s3"}, [{"provider": "s3"}]),
    ("publishing_config", [{"provider": "s3"}, {"provider": "folder"}], [{"provider": "s3"}, {"provider": "folder"}]),
    ("publishing_config", "publishing.json", [{"provider": "s3"}]),
    ("publishing_config", "", []),
    ("webhook_config", "hook.json", [{"webhook_type": "raw", "callback_url": "http://h"}]),
    ("webhooks_config", '{"webhook_url": "https://d"}', [{"webhook_url": "https://d"}]),
]


@pytest.mark.parametrize(("option", "value", "expected"), GOOD_VALUES)
def test_spellings(desk, least, option, value, expected):
    write_json(desk / "config/publishing.json", [{"provider": "s3"}])
    write_json(desk / "hook.json", {"webhook_type": "raw", "callback_url": "http://h"})
    values = least | {"instance_prompt": "x", "validation_external_script": "/x"} | {option: value}
    config = load(values=values, environ={}).config
    found = getattr(config, option.replace("webhooks", "webhook"))
    assert found == ("external-script" if expected is None and option == "validation_method" else expected)
    assert not isinstance(found, bool) or isinstance(expected, bool)


def test_repeated_publishing_flags_add_up(desk, least):
    write_json(desk / "a.json", [{"provider": "s3"}])
    flags = ["--publishing_config=a.json", '--publishing_config={"provider": "folder"}']
    config = load(flags=flags, values=least, environ={}).config
    assert config.publishing_config == [{"provider": "s3"}, {"provider": "folder"}]


def test_steps_alone_mean_no_epochs(desk, least):
    assert load(values=least, environ={}).config.num_train_epochs == 0
    without = {name: value for name, value in least.items() if name != "max_train_steps"}
    config = load(values=without, environ={}).config
    assert (config.num_train_epochs, config.max_train_steps) == (1, 0)
    assert (
        TrainingConfig(model_family="flux", model_type="full", output_dir="x", max_train_steps=3).num_train_epochs == 0
    )


def test_constant_with_a_warmup_is_constant_with_warmup(desk, least):
    config = load(values=least | {"lr_scheduler": "constant", "lr_warmup_steps": "5"}, environ={}).config
    assert config.lr_scheduler == "constant_with_warmup"


def test_paths_are_absolute(desk, least):
    (desk / "models/mine").mkdir(parents=True)
    values = least | {
        "pretrained_model_name_or_path": "models/mine",
        "cache_dir_vae": "~/vae/{model_family}/{id}",
        "model_flavour": "x",
    }
    loaded = load(values=values, environ={})
    config = loaded.config
    assert config.output_dir == desk / "output"
    assert config.cache_dir == desk / "output/cache"
    assert config.logging_dir == desk / "output/logs"
    assert config.data_backend_config == desk / "data.json"
    assert config.pretrained_model_name_or_path == str(desk / "models/mine")
    assert loaded.datasets[0].cache_dir_vae == Path.home() / "vae/pixart_sigma/pictures"


def test_hub_ids_stay_as_they_are(desk, least):
    config = load(values=least | {"pretrained_model_name_or_path": "owner/name"}, environ={}).config
    assert config.pretrained_model_name_or_path == "owner/name"


@pytest.mark.parametrize("written", ["demo/data.json", "config/demo/data.json", "{desk}/config/demo/data.json"])
def test_dataloader_is_found_from_anywhere_simpletuner_finds_it(desk, least, written):
    write_json(desk / "config/demo/data.json", [{"id": "a", "instance_data_dir": "pictures"}])
    values = least | {"data_backend_config": written.format(desk=desk)}
    assert load(values=values, environ={}).config.data_backend_config == desk / "config/demo/data.json"


def test_config_dir_may_be_elsewhere(desk, least, tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    write_json(folder / "demo/data.json", [{"id": "a", "instance_data_dir": str(desk / "pictures")}])
    write_json(folder / "demo/config.json", least | {"data_backend_config": "config/demo/data.json"})
    assert load(env="demo", config_dir=folder, environ={}).config.data_backend_config == folder / "demo/data.json"


def test_lycoris_settings_are_read_or_built_in(desk, least):
    settings = {"algo": "lokr", "multiplier": 1.0, "full_matrix": True, "linear_alpha": 1}
    write_json(desk / "mine.json", settings)
    lycoris = least | {"model_type": "lora", "lora_type": "lycoris"}
    assert load(values=lycoris | {"lycoris_config": "mine.json"}, environ={}).config.lycoris_config == settings
    assert load(values=lycoris | {"lycoris_config": settings}, environ={}).config.lycoris_config == settings
    assert load(values=least, environ={}).config.lycoris_config is None


def test_accepted_only_names_what_has_no_effect_yet(desk, least):
    quiet = load(values=least | {"report_to": "none", "controlnet": False, "base_model_precision": "fp32"}, environ={})
    assert quiet.accepted_only() == []
    values = least | {"report_to": "swanlab", "control": True, "optimizer": "soap", "ramtorch": "true"}
    assert set(load(values=values, environ={}).accepted_only()) == {
        "report_to=swanlab",
        "control=True",
        "optimizer=soap",
        "ramtorch=True",
    }


def test_packaged_examples_are_found_by_name(desk, least):
    (folder, *_) = packaged_folders()
    assert (folder / "examples").is_dir()
    found = Places(desk, desk / "config").find("config/examples/demo/config.json")
    assert found == folder / "examples/demo/config.json"
