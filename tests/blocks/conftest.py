"""Servers that destinations publish to, and a run's checkpoints to publish to them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3.session
import pytest
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import ContainerClient
from huggingface_hub.utils import close_session

from blocks.azure import EMULATOR_KEY
from flowtuner.publishing.snapshot import Snapshot, checkpoint_unit, freeze
from tests.fakes.azure.blobs import BlobServer, blob_server
from tests.fakes.azure.servers import azurite, connection_string
from tests.fakes.dropbox.account import Account
from tests.fakes.dropbox.server import FakeDropbox, session_to
from tests.fakes.faultproxy import FaultProxy
from tests.fakes.hub.accounts import ALICE, Accounts
from tests.fakes.hub.server import Hub, serve
from tests.fakes.s3.servers import KEYS, REGION, moto, seaweed

RUN = "run 1"
DROPBOX_TOKEN = "canary-token"


def ignore(done: int, total: int) -> None:
    """A progress callback for those who do not look."""


def take_checkpoint(tmp_path: Path, step: int, files: dict[str, bytes] | None = None) -> Snapshot:
    folder = tmp_path / "out" / RUN / f"checkpoint-{step}"
    files = files or {"transformer/weights.safetensors": b"weights %d" % step, "optimizer.bin": b"same moments"}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return freeze(checkpoint_unit(folder, "r1", step, {"validation_type": "intermediary"})).seal()


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    with moto() as url:
        yield url


@pytest.fixture(scope="session")
def s3_client(s3_url: str) -> Iterator[Any]:
    client = connect(s3_url)
    client.create_bucket(Bucket="models")
    yield client
    client.close()


@pytest.fixture
def s3(s3_client: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client on a server with one empty bucket; nothing of the user's own AWS settings counts."""
    leave_aws_alone(monkeypatch)
    empty(s3_client)
    return s3_client


@pytest.fixture(scope="session")
def weed_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with seaweed(tmp_path_factory.mktemp("weed")) as port:
        yield port


@pytest.fixture(scope="session")
def weed_client(weed_port: int) -> Iterator[Any]:
    client = connect(f"http://127.0.0.1:{weed_port}")
    client.create_bucket(Bucket="models")
    yield client
    client.close()


@pytest.fixture
def weed(weed_client: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client on SeaweedFS, past the proxy."""
    leave_aws_alone(monkeypatch)
    empty(weed_client)
    return weed_client


@pytest.fixture
def proxy(weed_port: int) -> Iterator[FaultProxy]:
    with FaultProxy(weed_port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def dropbox_server() -> Iterator[FakeDropbox]:
    with FakeDropbox() as server:
        yield server


@pytest.fixture
def account(dropbox_server: FakeDropbox, monkeypatch: pytest.MonkeyPatch) -> Account:
    """An empty Dropbox, to which the SDK's hosts lead."""
    dropbox_server.open(Account())
    dropbox_server.account.grant(DROPBOX_TOKEN)
    lead_to(dropbox_server.port, monkeypatch)
    return dropbox_server.account


def lead_to(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the SDK find Dropbox at a port of this machine, and the first wait be short."""
    monkeypatch.setattr("blocks.dropbox.open_session", lambda: session_to(port))
    monkeypatch.setattr("blocks.dropbox.FIRST_WAIT_S", 0.01)


@pytest.fixture(scope="session")
def hub_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with serve(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture
def hub(hub_server: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub without repositories, where contents travel as LFS; nothing of the user's own sign-in counts."""
    reset_hub(hub_server)
    leave_sign_in_alone(monkeypatch, tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", hub_server.url)
    monkeypatch.setenv("HF_TOKEN", ALICE)
    yield hub_server
    close_session()  # of the calls that a test made by itself


def reset_hub(hub: Hub) -> None:
    hub.state.accounts = Accounts.usual()
    hub.state.repos.clear()
    hub.state.traffic.clear()
    for blob in hub.state.blobs.folder.iterdir():
        blob.unlink()


def leave_sign_in_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, has_xet: bool = False) -> None:
    from huggingface_hub import constants

    # Both are read from the environment when the library is imported, which other tests may have done.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not has_xet)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def connect(url: str) -> Any:
    session = boto3.session.Session(KEYS["access_key"], KEYS["secret_key"], region_name=REGION)
    return session.client("s3", endpoint_url=url)


def empty(client: Any) -> None:
    for upload in client.list_multipart_uploads(Bucket="models").get("Uploads", ()):
        client.abort_multipart_upload(Bucket="models", Key=upload["Key"], UploadId=upload["UploadId"])
    for item in client.list_objects_v2(Bucket="models").get("Contents", ()):
        client.delete_object(Bucket="models", Key=item["Key"])


def leave_aws_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session")
def blobs() -> Iterator[BlobServer]:
    with blob_server(EMULATOR_KEY) as server:
        yield server


@pytest.fixture(scope="session")
def azurite_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with azurite(tmp_path_factory.mktemp("azurite")) as port:
        yield port


@pytest.fixture(params=["fake", pytest.param("azurite", marks=pytest.mark.slow)])
def azure_port(request: pytest.FixtureRequest) -> int:
    """A blob service in this process, or Azurite in the slow lane."""
    if request.param == "azurite":
        return int(request.getfixturevalue("azurite_port"))
    return int(request.getfixturevalue("blobs").server_port)


@pytest.fixture
def azure(azure_port: int) -> Iterator[ContainerClient]:
    """The SDK's client on one empty container."""
    client = ContainerClient.from_connection_string(connection_string(azure_port), "models")
    with contextlib.suppress(ResourceExistsError):
        client.create_container()
    for blob in client.list_blobs(include=["uncommittedblobs"]):
        name = client.get_blob_client(blob.name)
        if not blob.size:
            name.commit_block_list([])
        name.delete_blob()
    yield client
    client.close()


@pytest.fixture
def azure_proxy(azure_port: int) -> Iterator[FaultProxy]:
    with FaultProxy(azure_port) as proxy:
        yield proxy
