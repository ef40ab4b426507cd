"""Credentials at the door: saved in Prefect's blocks before a run is dispatched, so that no record of it holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flowtuner.options import TrainingConfig
from flowtuner.options.names import find_spelling
from flowtuner.publishing.hub import hub_entry, pushes
from flowtuner.publishing.registry import keep_credentials

OPTION, TOKEN = "publishing_config", "hub_token"


def conceal_run(parameters: Mapping[str, Any], config: TrainingConfig) -> dict[str, Any]:
    """The parameters of a flow that takes options, without the credentials of any destination."""
    return conceal_token(conceal_options(parameters, config.publishing_config), config)


def conceal_token(parameters: Mapping[str, Any], config: TrainingConfig) -> dict[str, Any]:
    """The same with the Hub's token in a block, whose name is handed over instead."""
    if not config.hub_token:
        return dict(parameters)
    values = {key: value for key, value in parameters["config"].items() if not _is_option(key, TOKEN)}
    if pushes(config) and not config.hub_block:
        [kept] = keep_credentials([hub_entry(config)], TOKEN)
        values["hub_block"] = kept["block"]
    return {**parameters, "config": values}


def conceal_options(parameters: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The parameters of a flow that takes options; entries with credentials in them, wherever they stood, are replaced.

    The configuration file may hold them too, as `{env:NAME}` or in clear: what is given as a value outranks it.
    """
    kept = keep_credentials(entries)
    if kept == list(entries):
        return dict(parameters)
    config = {key: value for key, value in parameters["config"].items() if not _is_option(key, OPTION)}
    return {**parameters, "config": config | {OPTION: kept}}


def conceal_destinations(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a flow that takes destinations, without their credentials."""
    wanted = parameters.get("destinations") or ()
    kept = [each if isinstance(each, str) else keep_credentials([each], "destinations")[0] for each in wanted]
    return {**parameters, "destinations": kept or None}


def _is_option(key: str, option: str) -> bool:
    spelling = find_spelling(key)
    return spelling is not None and spelling.option == option
