import json
import os
from pathlib import Path

import pytest

import flowtuner
from flowtuner.engine.families import supported
from flowtuner.options import load

CONFIG = Path(flowtuner.__file__).parent / "config"
EXAMPLES = sorted(path.parent.name for path in (CONFIG / "examples").glob("*/config.json"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    entries = [
        entry for path in CONFIG.glob("examples/*/multidatabackend.json") for entry in json.loads(path.read_text())
    ]
    folders = {entry["instance_data_dir"] for entry in entries if "instance_data_dir" in entry}
    for name in ("pictures", "model", *(folder for folder in folders if folder.startswith("datasets/"))):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_travel_with_the_package():
    names = {"demo", "flux_lora", "kontext_lora", "pixart_sigma_full", "pixart_sigma_lora", "sd1x_full", "sdxl_lora"}
    assert names <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_loads_without_a_warning(name, place):
    environ = {**os.environ, "FLOWTUNER_DEMO_DIR": str(place)}
    loaded = load(config_file=CONFIG / "examples" / name / "config.json", environ=environ)
    assert loaded.config.model_family in supported()
    assert loaded.datasets
    assert loaded.config.publishing_config[0]["provider"] == "folder"
    assert loaded.warnings == ()


def test_the_demo_works_below_the_given_folder_only(place):
    environ = {**os.environ, "FLOWTUNER_DEMO_DIR": str(place)}
    loaded = load(config_file=CONFIG / "examples" / "demo" / "config.json", environ=environ)
    assert loaded.config.output_dir == place / "run"
    assert loaded.config.cache_dir == place / "run" / "cache"
    assert loaded.config.publishing_config[0]["path"] == str(place / "published")
    assert loaded.datasets[0].instance_data_dir == place / "pictures"


def test_the_templates_load_where_options_name_them(place):
    environ = {
        **os.environ,
        "FLOWTUNER_PUBLISH_DIR": str(place / "published"),
        "FLOWTUNER_WEBHOOK_URL": "https://example.org/hook",
        "DISCORD_WEBHOOK_URL": "https://example.org/discord",
    }
    values = {
        "publishing_config": str(CONFIG / "publishing.json"),
        "webhook_config": str(CONFIG / "webhooks.json"),
        "lora_type": "lycoris",
        "lycoris_config": "config/lycoris_config.json",
    }
    example = CONFIG / "examples" / "pixart_sigma_lora" / "config.json"
    config = load(config_file=example, values=values, environ=environ).config
    assert config.publishing_config[0]["path"] == str(place / "published")
    assert [entry["webhook_type"] for entry in config.webhook_config] == ["raw", "discord"]
    assert config.lycoris_config == json.loads((CONFIG / "lycoris_config.json").read_text())
