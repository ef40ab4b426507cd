"""Credentials at the door: saved in Prefect's blocks before a run is dispatched, so that no record of it holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flowtuner.options.names import find_spelling
from flowtuner.publishing.registry import keep_credentials

OPTION = "publishing_config"


def conceal_options(parameters: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The parameters of a flow that takes options; entries with credentials in them, wherever they stood, are replaced.

    The configuration file may hold them too, as `{env:NAME}` or in clear: what is given as a value outranks it.
    """
    kept = keep_credentials(entries)
    if kept == list(entries):
        return dict(parameters)
    config = {key: value for key, value in parameters["config"].items() if not _is_publishing(key)}
    return {**parameters, "config": config | {OPTION: kept}}


def conceal_destinations(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a flow that takes destinations, without their credentials."""
    wanted = parameters.get("destinations") or ()
    kept = [each if isinstance(each, str) else keep_credentials([each], "destinations")[0] for each in wanted]
    return {**parameters, "destinations": kept or None}


def _is_publishing(key: str) -> bool:
    spelling = find_spelling(key)
    return spelling is not None and spelling.option == OPTION
