"""The options of the Hub as one more destination: names, owners, strategies, and the token at the door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowtuner.engine.events import PUBLISH, EventLog
from flowtuner.errors import ConfigError
from flowtuner.options import load
from flowtuner.publishing.checks import check_publishing
from flowtuner.publishing.hub import hub_entries, publishing_entries, uploads_under_way
from tasks.credentials import find_credentials_in_options
from tests.conftest import tiny_options

PUSH = {"push_to_hub": True, "hub_model_id": "alice/fox-lora"}


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    for name in ("model", "pictures"):
        (tmp_path / name).mkdir()
    return tiny_options(tmp_path, tmp_path / "model", tmp_path / "pictures")


def entries(options: dict[str, Any]) -> list[dict[str, Any]]:
    loaded = load(values=options, environ={}, checks=[check_publishing])
    return publishing_entries(loaded.config)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, None),
        (PUSH, {"repo_id": "alice/fox-lora", "hub_strategy": "end"}),
        ({"push_checkpoints_to_hub": True} | PUSH, {"hub_strategy": "all_checkpoints"}),
        ({"hub_strategy": "checkpoint"} | PUSH, {"hub_strategy": "checkpoint"}),
        ({"model_card_private": True} | PUSH, {"private": True}),
        ({"hub_private_repo": False} | PUSH, {"private": False}),
        ({"hub_revision": "v2", "hub_allow_existing": True} | PUSH, {"revision": "v2", "allow_existing": True}),
        ({"push_to_hub": True}, {"own_repo": "output"}),
        ({"push_to_hub": True, "tracker_project_name": "foxes"}, {"own_repo": "foxes"}),
        ({"push_to_hub": True, "push_to_hub_organization": "acme", "push_to_hub_model_id": "x"}, {"repo_id": "acme/x"}),
        ({"push_to_hub": True, "hub_model_id": "acme/x", "push_to_hub_organization": "acme"}, {"repo_id": "acme/x"}),
        ({"push_to_hub_token": "hf_x"} | PUSH, {"token": "hf_x"}),
        ({"hub_token": "hf_x", "hub_block": "mine"} | PUSH, {"block": "mine"}),
    ],
)
def test_the_options_amount_to_an_entry(
    options: dict[str, Any], values: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    found = entries(options | values)
    assert len(found) == (0 if expected is None else 1)
    if expected is not None:
        assert found[0].items() >= ({"provider": "huggingface"} | expected).items()
        assert ("private" in found[0]) is ("private" in expected)
        assert ("token" in found[0]) is ("token" in expected)


def test_it_is_added_to_the_other_destinations(options: dict[str, Any], tmp_path: Path) -> None:
    folder = {"provider": "folder", "path": str(tmp_path)}
    assert [entry["provider"] for entry in entries(options | PUSH | {"publishing_config": [folder]})] == [
        "folder",
        "huggingface",
    ]
    config = load(values=options | {"publishing_config": [{"type": "HF", "repo_id": "a/b"}]}, environ={}).config
    assert len(hub_entries(config)) == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"push_to_hub": True, "hub_model_id": "model-name"}, ["hub_model_id", "owner/name"]),
        ({"push_to_hub_organization": "acme"} | PUSH, ["acme", "alice"]),
        ({"push_to_hub_model_id": "alice/other"} | PUSH, ["alice/other", "alice/fox-lora"]),
        ({"push_to_hub": True, "hub_model_id": "alice/a..b"}, ["'..'"]),
        ({"hub_strategy": "sometimes"} | PUSH, ["hub_strategy", "every_save"]),
    ],
)
def test_a_wrong_option_says_what_is_wrong(options: dict[str, Any], values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        entries(options | values)
    for word in words:
        assert word in str(caught.value)


def test_a_token_that_is_given_twice_is_not_shown(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="hub_token") as caught:
        entries(options | PUSH | {"hub_token": "hf_canaryOne", "push_to_hub_token": "hf_canaryTwo"})
    assert "canary" not in str(caught.value)


def test_a_token_among_a_flows_parameters_is_refused() -> None:
    [fault] = find_credentials_in_options({"push_to_hub_token": "hf_canary"})
    assert "hub_block" in str(fault)
    assert "canary" not in str(fault)
    assert find_credentials_in_options({"hub_token": "{env:HF_TOKEN}", "hub_block": "mine"}) == []


def test_uploads_that_have_not_ended_are_known(tmp_path: Path) -> None:
    with EventLog(tmp_path / "logs" / "events.jsonl", "r1") as log:
        for what, state in (("checkpoint-2", "uploading"), ("checkpoint-2", "verified"), ("release", "uploading")):
            log.append(PUBLISH, {"what": what, "state": state, "provider": "huggingface"})
        log.append(PUBLISH, {"what": "checkpoint-4", "state": "uploading", "provider": "folder"})
    assert uploads_under_way(tmp_path) == ["release"]
