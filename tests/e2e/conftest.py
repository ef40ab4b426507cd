"""What the runs in processes of their own share: one Prefect server, and a bucket whose keys are in the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from flowtuner.jobs.server import prefect_server
from tests.blocks.conftest import connect
from tests.fakes.s3.servers import KEYS, moto


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with prefect_server(tmp_path_factory.mktemp("home"), start_timeout_s=300):
        yield


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    with moto() as url:
        client = connect(url)
        client.create_bucket(Bucket="models")
        client.close()
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.setenv(name, os.devnull)
        monkeypatch.setenv("S3_KEY", KEYS["access_key"])
        monkeypatch.setenv("S3_SECRET", KEYS["secret_key"])
        keys = {"access_key": "{env:S3_KEY}", "secret_key": "{env:S3_SECRET}", "region": "us-east-1"}
        yield {"provider": "s3", "bucket": "models", "endpoint_url": url, "base_path": "team", "name": "bucket"} | keys
