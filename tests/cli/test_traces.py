"""Credentials given to the command, followed everywhere they might have gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3.session
import pytest

from tests.fakes.s3.servers import REGION, moto

COMMAND = [sys.executable, "-m", "flowtuner.cli"]
TIMEOUT_S = 110

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket() -> Iterator[tuple[str, Any]]:
    with moto() as url:
        client = boto3.session.Session("a", "b", region_name=REGION).client("s3", endpoint_url=url)
        client.create_bucket(Bucket="cli")
        yield url, client
        client.close()


def run(*arguments: object, **environ: str) -> str:
    words = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, env=dict(os.environ) | environ
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def files_with_canaries(*folders: Path) -> list[str]:
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and b"canary" in path.read_bytes().lower():
                found.append(str(path))
    return found


def test_no_credential_is_found_where_a_run_leaves_its_traces(
    config_file: Path, tmp_path: Path, home: Path, bucket: tuple[str, Any]
) -> None:
    url, client = bucket
    entry = {
        "provider": "s3-compatible",
        "bucket": "cli",
        "endpoint_url": url,
        "region": REGION,
        "aws_access_key_id": "{env:OUR_ID}",
        "secret_key": "canary-secret-in-the-file",
        "request_headers": {"X-Gateway": "canary-header"},
    }
    options = json.loads(config_file.read_text()) | {"publishing_config": [entry]}
    config_file.write_text(json.dumps(options))
    said = run("train", "--config", config_file, OUR_ID="AKIACANARY000000ENV")
    given = json.dumps(entry | {"aws_access_key_id": "AKIACANARY00000FLAG", "base_path": "by-hand"})
    said += run("publish", tmp_path / "output", f"--publishing_config={given}", "--config", config_file, OUR_ID="x")
    # The folder remembers the block's name, which is all that publishing again needs.
    again = run("publish", tmp_path / "output", "--json")
    keys = [item["Key"] for item in client.list_objects_v2(Bucket="cli")["Contents"]]
    assert {"output/manifest.json", "by-hand/output/manifest.json"} <= set(keys)
    assert '"state": "verified"' in again
    for key in keys:
        reply = client.get_object(Bucket="cli", Key=key)
        assert b"canary" not in reply["Body"].read().lower()
        assert "canary" not in str(reply["Metadata"]).lower()
    assert "canary" not in (said + again).lower()
    assert (home / "server").is_dir()
    assert files_with_canaries(home, tmp_path / "output", tmp_path / "prefect") == []
