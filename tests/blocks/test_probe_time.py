"""How long a run waits for all its destinations before it starts: every provider at once, each with a real client."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from blocks.azure import AzureDestination
from blocks.dropbox import DropboxDestination
from blocks.folder import FolderDestination
from blocks.huggingface import HuggingFaceDestination
from blocks.s3 import S3Destination
from flowtuner.publishing.preflight import probe_destinations
from tests.blocks.conftest import DROPBOX_TOKEN
from tests.fakes.azure.servers import connection_string
from tests.fakes.hub.server import Hub
from tests.fakes.s3.servers import KEYS

ALLOWED_S = 5.0
ROOM = 1 << 20


@pytest.mark.slow
@pytest.mark.usefixtures("weed", "azure", "account")
def test_all_services_are_probed_within_five_seconds(tmp_path: Path, weed_port: int, azure_port: int, hub: Hub) -> None:
    keys: Any = KEYS
    token: Any = DROPBOX_TOKEN
    azure: Any = connection_string(azure_port)
    destinations = [
        S3Destination(bucket="models", endpoint_url=f"http://127.0.0.1:{weed_port}", region="us-east-1", **keys),
        AzureDestination(connection_string=azure, container="models"),
        DropboxDestination(token=token),
        HuggingFaceDestination(repo_id="alice/fox-lora", endpoint=hub.url),
        FolderDestination(path=tmp_path),
    ]
    started = time.monotonic()
    probed = probe_destinations(destinations, tmp_path / "out" / "run", ROOM)
    took_s = time.monotonic() - started
    assert probed.faults == ()
    assert len(probed.passed) == len(destinations)
    assert took_s < ALLOWED_S
    print(f"all probed in {took_s:.2f} s")
