"""How flow runs are called in Prefect's lists."""

from __future__ import annotations

from pathlib import PurePath

from prefect.runtime import flow_run


def name_run() -> str:
    """The output folder and the model, or whatever the parameters say about them."""
    parameters = flow_run.get_parameters() or {}
    values = {str(key).removeprefix("--"): value for key, value in (parameters.get("config") or {}).items()}
    source = parameters.get("config_file") or parameters.get("env")
    place = PurePath(str(values.get("output_dir") or parameters.get("path") or source or "run")).name
    model = " ".join(str(values[key]) for key in ("model_family", "model_type") if values.get(key))
    return f"{place} ({model})" if model else place
