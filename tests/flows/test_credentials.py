"""Credentials of destinations: kept in Prefect's blocks, replaced by their names, and nowhere else to be found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3.session
import pytest
from prefect.client.orchestration import get_client

from flows.train import train
from flowtuner.errors import ConfigError
from flowtuner.publishing.door import conceal_destinations, conceal_options
from flowtuner.publishing.registry import check_entries, keep_credentials, open_destinations
from tests.fakes.s3.servers import KEYS, REGION, moto

pytestmark = pytest.mark.usefixtures("prefect_api")

ENTRY = {
    "provider": "b2",
    "bucket": "models",
    "endpoint_url": "https://s3.example.invalid",
    "aws_access_key_id": "canary-id",
    "aws_secret_access_key": "canary-secret",
    "session_token": "canary-token",
    "request_headers": {"X-Gateway": "canary-header"},
    "base_path": "team",
    "required": False,
}


def test_an_entry_becomes_a_block_that_says_the_same() -> None:
    [kept] = keep_credentials([ENTRY])
    assert "canary" not in json.dumps(kept)
    assert (kept["provider"], kept["bucket"], kept["base_path"]) == ("s3", "models", "team")
    [inline], [stored] = open_destinations([ENTRY]), open_destinations([kept])
    assert stored.model_dump() == inline.model_dump()  # type: ignore[attr-defined]
    assert stored.secret_key.get_secret_value() == "canary-secret"  # type: ignore[attr-defined]
    assert stored.checksums == "when_required"  # type: ignore[attr-defined]
    # Keys of the entry stand above those of the block, and a renewed credential replaces the old one.
    [other] = open_destinations([{"provider": "s3", "block": kept["block"], "base_path": "other"}])
    assert other.base_path == "other"  # type: ignore[attr-defined]
    [again] = keep_credentials([ENTRY | {"aws_secret_access_key": "canary-renewed"}])
    assert again == kept
    [renewed] = open_destinations([again])
    assert renewed.secret_key.get_secret_value() == "canary-renewed"  # type: ignore[attr-defined]
    with get_client(sync_client=True) as client:
        shown = client.read_block_document_by_name(kept["block"], "flowtuner-s3", include_secrets=False)
    assert "canary" not in shown.model_dump_json()


def test_parameters_hold_names_in_place_of_credentials(tmp_path: Path) -> None:
    given = {"config": {"publishing-config": json.dumps(ENTRY), "seed": "1"}, "env": None, "config_file": "c.json"}
    concealed = conceal_options(given, [ENTRY])
    assert "canary" not in json.dumps(concealed)
    assert concealed["config"]["seed"] == "1"
    assert concealed["config"].keys() == {"publishing_config", "seed"}
    assert "canary" not in json.dumps(conceal_destinations({"path": "x", "destinations": [ENTRY]}))
    harmless = {"provider": "folder", "path": str(tmp_path)}
    untouched = {"config": {"publishing_config": "publishing.json"}, "env": None, "config_file": None}
    assert conceal_options(untouched, [harmless]) == untouched
    assert conceal_destinations({"path": "x", "destinations": None}) == {"path": "x", "destinations": None}


def test_mistakes_are_told_without_the_values_of_secrets() -> None:
    wrong = [
        ENTRY | {"secret_kye": "canary"},
        ENTRY | {"secret_key": "canary-twice"},
        {"provider": "s3", "bucket": "models", "secret_key": ["canary"]},
        {"provider": "s3", "bucket": "models", "secret_key": "canary"},
        {"provider": "s3", "bucket": "a/b", "endpoint_url": "https://canary:canary@host"},
        {"provider": "backblaze_b2", "bucket": "models"},
        {"provider": "s3", "bucket": "models", "kms_key_id": "k", "storage_class": 3},
    ]
    text = "\n".join(str(fault) for fault in check_entries(wrong))
    assert "canary" not in text
    for part in (
        "did you mean 'secret_key'?", "under two names", "belong together", "use access_key and secret_key instead",
        "s3.REGION.backblazeb2.com", "storage_class",
    ):  # fmt: skip
        assert part in text
    with pytest.raises(ConfigError) as caught:
        open_destinations([{"provider": "s3", "block": "nobodys"}])
    assert "save a Flowtuner S3 block of this name" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        open_destinations(wrong[2:4])
    assert "canary" not in str(caught.value)


@pytest.mark.slow
def test_a_run_publishes_to_a_bucket_through_a_block_and_refuses_credentials(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with moto() as url:
        client = boto3.session.Session("a", "b", region_name=REGION).client("s3", endpoint_url=url)
        client.create_bucket(Bucket="flows")
        entry = {
            "provider": "s3",
            "bucket": "flows",
            "endpoint_url": url,
            "region": REGION,
            "base_path": "team",
            **KEYS,
        }
        with pytest.raises(ConfigError, match="holds credentials") as caught:
            train(config=options | {"publishing_config": [entry]})
        assert KEYS["secret_key"] not in str(caught.value)
        result = train(config=options | {"publishing_config": keep_credentials([entry]), "checkpoints_total_limit": 1})
        assert isinstance(result, dict)
        assert all(row["verified"] for row in result["published"])
        assert result["published"][-1]["uri"] == f"{url}/flows/team/my%20run"
        keys = [item["Key"] for item in client.list_objects_v2(Bucket="flows")["Contents"]]
        client.close()
    # The older checkpoint went there as it went here.
    assert {key.split("/")[2] for key in keys if "checkpoint-" in key} == {"checkpoint-8"}
    assert {"team/my run/manifest.json", "team/my run/checkpoint-8/manifest.json"} <= set(keys)
