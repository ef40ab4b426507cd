"""How flow runs are called in Prefect's lists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from prefect.runtime import flow_run


def name_run() -> str:
    """The output folder and the model, or whatever the parameters say about them."""
    return describe_run(flow_run.get_parameters() or {})


def describe_run(parameters: Mapping[str, Any]) -> str:
    """A name for a run of these parameters."""
    values = {str(key).removeprefix("--"): value for key, value in (parameters.get("config") or {}).items()}
    place = values.get("output_dir") or parameters.get("path") or _source(parameters) or "run"
    model = " ".join(str(values[key]) for key in ("model_family", "model_type") if values.get(key))
    name = PurePath(str(place)).name
    return f"{name} ({model})" if model else name


def _source(parameters: Mapping[str, Any]) -> str | None:
    if parameters.get("config_file"):
        file = PurePath(str(parameters["config_file"]))
        # config/mine/config.json is known as mine.
        return file.parent.name if file.stem == "config" and file.parent.name else file.stem
    return parameters.get("env")
