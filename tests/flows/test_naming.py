"""What flow runs are called in Prefect's lists."""

from __future__ import annotations

from typing import Any

import pytest

from flows.naming import describe_run


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"config": {"--output_dir": "out/roses", "model_family": "pixart_sigma"}}, "roses (pixart_sigma)"),
        ({"env": "mine"}, "mine"),
        ({"env": None, "config_file": "config/mine/config.json", "config": {}}, "mine"),
        ({"config_file": "roses.toml", "config": {"model_type": "lora"}}, "roses (lora)"),
        ({"config_file": "config.json"}, "config"),
        ({"path": "/mnt/share/roses/checkpoint-20", "destinations": None}, "checkpoint-20"),
        ({}, "run"),
    ],
)
def test_a_run_is_called_after_its_folder_or_file(parameters: dict[str, Any], name: str) -> None:
    assert describe_run(parameters) == name
