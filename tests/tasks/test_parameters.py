"""Credentials in a flow's parameters are refused; names of blocks and of environment variables are not."""

from __future__ import annotations

import json

import pytest

from tasks.credentials import find_credentials, find_credentials_in_options

SECRET = {"provider": "s3", "bucket": "b", "secret_key": "canary"}
HARMLESS = [
    {"provider": "s3", "block": "prod", "kms_key_id": "k"},
    {"provider": "s3", "bucket": "b", "access_key": "{env:ID}", "secret_key": "{env:KEY}"},
    {"provider": "folder", "path": "/x"},
]


@pytest.mark.parametrize("value", [SECRET, [SECRET], json.dumps(SECRET), json.dumps([*HARMLESS, SECRET])])
@pytest.mark.parametrize("key", ["publishing_config", "--publishing-config"])
def test_credentials_are_refused_without_being_shown(key: str, value: object) -> None:
    [fault] = find_credentials_in_options({key: value, "seed": 1})
    assert "canary" not in str(fault)
    assert "flowtuner train" in str(fault)


@pytest.mark.parametrize("value", [None, HARMLESS, json.dumps(HARMLESS), "config/publishing.json", "[broken", []])
def test_what_names_no_credential_may_pass(value: object) -> None:
    assert find_credentials_in_options({"publishing_config": value}) == []
    assert find_credentials(value, "destinations") == []
