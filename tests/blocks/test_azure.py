"""The Azure destination: what is written, proved, resumed, refused and cleaned up, on a fake and on Azurite."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import ContainerClient, ContainerSasPermissions, generate_container_sas

from blocks import azure as azure_module
from blocks.azure import EMULATOR_KEY, MIB, AzureDestination
from blocks.parts import azure_retry, blob_blocks
from blocks.parts.blob_blocks import HELD_BYTES
from flowtuner.errors import DestinationDown, PublishError
from flowtuner.publishing.registry import check_entries, open_destinations
from tests.blocks.conftest import RUN, ignore, take_checkpoint
from tests.fakes.azure.servers import ACCOUNT, connection_string
from tests.fakes.faultproxy import FaultProxy, Rule

BIG = {
    "transformer/weights.safetensors": os.urandom(5 * MIB + 1),
    "training_state.json": b"{}",
    "a b/ü+%.bin": b"moments",
    "empty.bin": b"",
}
BYTES = sum(map(len, BIG.values()))
PREFIX = f"team/a/{RUN}/checkpoint-20"
WEIGHTS = f"{PREFIX}/transformer/weights.safetensors"


def open_destination(port: int, **settings: Any) -> AzureDestination:
    base = {"container": "models", "base_path": "team/a", "block_mib": 1}
    secrets = {"connection_string": connection_string(port)} if "account_url" not in settings else {}
    return AzureDestination(**{**base, **secrets, **settings})


def blobs_in(client: ContainerClient) -> dict[str, bytes]:
    return {blob.name: client.download_blob(blob.name).readall() for blob in client.list_blobs()}


def waiting_in(client: ContainerClient, name: str) -> list[Any]:
    return list(client.get_blob_client(name).get_block_list("uncommitted")[1])


@pytest.mark.parametrize("held_bytes", [HELD_BYTES, 0], ids=["held", "streamed"])
@pytest.mark.parametrize("has_runtime", [True, False])
def test_a_checkpoint_is_published_proved_and_not_sent_again(
    tmp_path: Path,
    azure: ContainerClient,
    azure_proxy: FaultProxy,
    has_runtime: bool,
    held_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("blocks.parts.blob_blocks.HELD_BYTES", held_bytes)
    if not has_runtime:  # then blocks are checked by MD5
        monkeypatch.setitem(sys.modules, "awscrt", None)
    destination = open_destination(azure_proxy.port)
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    progress: list[tuple[int, int]] = []
    result = destination.publish(snapshot, lambda done, total: progress.append((done, total)))
    manifest = {"manifest.json": snapshot.manifest.to_bytes()}
    assert blobs_in(azure) == {f"{PREFIX}/{name}": data for name, data in (BIG | manifest).items()}
    assert (result.verified, result.files, result.sent_files, result.sent_bytes) == (True, 4, 4, BYTES)
    assert progress[-1] == (BYTES, BYTES)
    assert progress == sorted(progress)
    assert destination.verify(snapshot.manifest, deep=True) == []
    state = azure.get_blob_client(f"{PREFIX}/training_state.json").get_blob_properties()
    assert state.content_settings.content_type == "application/json"
    assert bytes(state.content_settings.content_md5 or b"") == hashlib.md5(b"{}").digest()
    assert state.metadata["flowtuner_run"] == RUN
    assert state.metadata["flowtuner_step"] == "20"
    assert state.metadata["flowtuner_validation_type"] == "intermediary"

    small = [seen for seen in azure_proxy.log if seen.method == "PUT" and "weights" not in seen.path]
    assert [seen.status for seen in small if ".probe" not in seen.path] == [201] * 4
    azure_proxy.clear()
    again = destination.publish(snapshot, ignore)
    assert (again.sent_files, again.sent_bytes, again.manifest_sha256) == (0, 0, result.manifest_sha256)
    assert len(azure_proxy.log) <= 3
    assert azure_proxy.payload == 0


def test_blocks_that_arrived_are_not_sent_again_by_another_process(
    tmp_path: Path, azure: ContainerClient, azure_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure_module, "ATTEMPTS", 1)
    monkeypatch.setattr(blob_blocks, "BLOCKS_AT_ONCE", 1)
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    azure_proxy.rules = [Rule("cut", "PUT", "comp=block&", nth=4, after=1000)]
    with pytest.raises(DestinationDown):
        open_destination(azure_proxy.port).publish(snapshot, ignore)
    assert blobs_in(azure) == {}
    there = len(waiting_in(azure, WEIGHTS))
    assert there >= 3
    azure_proxy.clear()
    assert open_destination(azure_proxy.port).publish(snapshot, ignore).verified
    assert len([seen for seen in azure_proxy.log if "comp=block&" in seen.path]) == 6 - there
    assert blobs_in(azure)[WEIGHTS] == BIG["transformer/weights.safetensors"]


def test_blocks_of_another_version_are_not_taken_for_this_one(
    tmp_path: Path, azure: ContainerClient, azure_port: int
) -> None:
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    sha256 = next(record.sha256 for record in snapshot.manifest.files if record.size > MIB)
    blob = azure.get_blob_client(WEIGHTS)
    blob.stage_block(f"000001-00000000-{'0' * 16}-00000000001", os.urandom(MIB))
    blob.stage_block(f"000002-00000000-{sha256[:16]}-00000000001", os.urandom(MIB))  # other bytes than its name says
    assert open_destination(azure_port).publish(snapshot, ignore).verified
    assert blobs_in(azure)[WEIGHTS] == BIG["transformer/weights.safetensors"]


def test_bytes_that_were_damaged_on_their_way_are_refused_by_the_service(
    tmp_path: Path, azure: ContainerClient, azure_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "awscrt", None)
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    for path in ("comp=block&", "training_state", "manifest"):
        azure_proxy.rules = [Rule("garble", "PUT", path, times=99)]
        with pytest.raises(DestinationDown, match="Md5Mismatch"):
            open_destination(azure_proxy.port).publish(snapshot, ignore)
        assert f"{PREFIX}/manifest.json" not in blobs_in(azure)
    azure_proxy.clear()
    assert open_destination(azure_proxy.port).publish(snapshot, ignore).verified


def test_a_file_that_changed_on_this_disk_is_not_published(
    tmp_path: Path, azure: ContainerClient, azure_port: int
) -> None:
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    for name, data in BIG.items():
        if data:
            path = snapshot.folder / name
            path.unlink()
            path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
            with pytest.raises(PublishError, match="other bytes than when it was frozen"):
                open_destination(azure_port).publish(snapshot, ignore)
            path.write_bytes(data)
    assert f"{PREFIX}/manifest.json" not in blobs_in(azure)


def test_a_service_that_asks_for_time_gets_it_within_a_bound(
    tmp_path: Path, azure: ContainerClient, azure_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = take_checkpoint(tmp_path, 20)
    for path in ("manifest", "weights"):
        azure_proxy.rules = [Rule("status", "PUT", path, code=429, headers={"Retry-After": "1"})]
        started = time.monotonic()
        assert open_destination(azure_proxy.port).publish(snapshot, ignore).verified
        assert time.monotonic() - started >= 1
        for blob in azure.list_blobs():
            azure.delete_blob(blob.name)
    monkeypatch.setattr(azure_retry, "FIRST_WAIT_S", 0.01)
    azure_proxy.rules = [Rule("status", "GET", code=503, times=4)]
    assert open_destination(azure_proxy.port).publish(snapshot, ignore).verified
    azure_proxy.rules = [Rule("status", code=429, headers={"Retry-After": "3600"}, times=99)]
    started = time.monotonic()
    with pytest.raises(DestinationDown, match="429"):
        open_destination(azure_proxy.port).publish(snapshot, ignore)
    assert time.monotonic() - started < 30


def test_old_checkpoints_and_abandoned_blocks_go(tmp_path: Path, azure: ContainerClient, azure_port: int) -> None:
    destination = open_destination(azure_port)
    for step in (20, 40, 60):
        destination.publish(take_checkpoint(tmp_path, step), ignore)
    late, recent = f"team/a/{RUN}/checkpoint-40/late.bin", f"team/a/{RUN}/checkpoint-60/recent.bin"
    azure.get_blob_client(late).stage_block(f"000001-00000000-{'0' * 16}-00000000001", b"old")
    azure.get_blob_client(recent).stage_block(f"000001-00000000-{'0' * 16}-{int(time.time()):011d}", b"new")
    azure.upload_blob(f"team/a/{RUN}/checkpoint-1/theirs", b"no manifest of ours")
    assert destination.prune(RUN, 0, "checkpoint-60") == []
    assert destination.prune(RUN, 2, "checkpoint-60") == ["checkpoint-20"]
    assert {name.split("/")[3] for name in blobs_in(azure)} == {"checkpoint-1", "checkpoint-40", "checkpoint-60"}
    with destination._open_store() as store:
        store.drop_unfinished(RUN, 3600)
    found = {blob.name for blob in azure.list_blobs(include=["uncommittedblobs"])}
    assert recent in found
    assert late not in found


def test_what_is_published_is_found_and_fetched(
    tmp_path: Path, azure: ContainerClient, azure_proxy: FaultProxy
) -> None:
    destination = open_destination(azure_proxy.port)
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    destination.publish(snapshot, ignore)
    [manifest] = destination.units(RUN)
    assert manifest == snapshot.manifest
    uri = str(destination.uri_of(manifest))
    followed = destination.follow(uri)
    assert followed is not None
    assert (followed[0].base_path, followed[1].run, followed[1].name) == ("team/a", RUN, "checkpoint-20")
    azure_proxy.rules = [Rule("cut_reply", "GET", "weights", after=1000), Rule("garble_reply", "GET", "state")]
    destination.fetch(manifest, tmp_path / "back", ignore)
    assert {name: (tmp_path / "back" / name).read_bytes() for name in BIG} == BIG


def test_two_runs_at_the_same_place_are_noticed(azure: ContainerClient, azure_port: int) -> None:
    with open_destination(azure_port)._open_store() as store:
        store.write("x/manifest.json", b"theirs", is_new=True)
        with pytest.raises(PublishError, match="two runs"):
            store.write("x/manifest.json", b"ours", is_new=True)
        store.write("x/manifest.json", b"theirs", is_new=True)  # our own, when the first reply was lost


def test_the_probe_leaves_nothing_and_names_what_is_wrong(azure: ContainerClient, azure_port: int) -> None:
    open_destination(azure_port).probe()
    assert blobs_in(azure) == {}
    canary = base64.b64encode(b"canary").decode()
    with pytest.raises(PublishError, match="Check account_key") as caught:
        open_destination(azure_port, connection_string=connection_string(azure_port, canary)).probe()
    assert canary not in str(caught.value)
    other = connection_string(azure_port).replace(ACCOUNT, "nobody1")
    with pytest.raises(PublishError, match="correct account_name"):
        open_destination(azure_port, connection_string=other).probe()


def test_a_container_that_is_not_there_is_made_before_training(
    azure: ContainerClient, azure_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **settings: Any) -> None:
        raise HttpResponseError("this credential may not make containers")

    destination = open_destination(azure_port, container="not-there-yet")
    made = ContainerClient.from_connection_string(connection_string(azure_port), "not-there-yet")
    with monkeypatch.context() as patch:
        patch.setattr(ContainerClient, "create_container", refuse)
        with pytest.raises(PublishError, match="Create the container or correct `container`"):
            destination.probe()
    for _ in range(2):
        destination.probe()
        assert blobs_in(made) == {}
    made.delete_container()


def test_an_account_that_nobody_knows_is_said_to_be_away() -> None:
    with pytest.raises(DestinationDown, match="check the account's name"):
        AzureDestination(account_url="http://nobody.invalid", account_name="nobody1", account_key="Zm9v",
                         container="models").probe()  # fmt: skip


def make_sas(hours: float, **allowed: bool) -> str:
    return generate_container_sas(
        ACCOUNT, "models", EMULATOR_KEY, permission=ContainerSasPermissions(**allowed),
        expiry=datetime.now(UTC) + timedelta(hours=hours),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("azure_port", ["azurite"], indirect=True)
def test_a_sas_works_and_what_it_lacks_is_told(tmp_path: Path, azure_port: int, azure: ContainerClient) -> None:
    url = f"http://127.0.0.1:{azure_port}/{ACCOUNT}"
    everything = {"read": True, "add": True, "create": True, "write": True, "delete": True, "list": True}
    for settings in ({"sas_token": f"?{make_sas(1, **everything)}"}, {"account_key": make_sas(1, **everything)}):
        destination = open_destination(azure_port, account_url=url, **settings)
        destination.probe()
        assert destination.publish(take_checkpoint(tmp_path, 20, BIG), ignore).verified
    told = {"expired": make_sas(-1, **everything), "allows less": make_sas(1, read=True, list=True)}
    for text, sas in told.items():
        with pytest.raises(PublishError, match=text) as caught:
            open_destination(azure_port, account_url=url, sas_token=sas).probe()
        assert sas not in str(caught.value)
        assert "sig=" not in str(caught.value).replace("sig=***", "")


def test_without_a_secret_the_machine_signs_in_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    destination = AzureDestination(account_name="nobody1", container="models")
    assert type(destination._credential()).__name__ == "DefaultAzureCredential"
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(PublishError, match=r'pip install "flowtuner\[azure\]"'):
        destination.probe()


def test_uris_are_percent_encoded(tmp_path: Path) -> None:
    manifest = take_checkpoint(tmp_path, 20).manifest
    plain = {"container": "models", "base_path": " /a b/ ", "account_key": "Zm9v"}
    named = AzureDestination(**plain, account_name="acc1")
    assert named.uri_of(manifest) == "https://acc1.blob.core.windows.net/models/a%20b/run%201/checkpoint-20"
    assert named.name == "azure_blob:acc1/models/a b"
    text = "DefaultEndpointsProtocol=https;AccountName=acc1;AccountKey=Zm9v;EndpointSuffix=core.chinacloudapi.cn"
    china = AzureDestination(container="models", connection_string=text)
    assert china.uri_of(manifest) == "https://acc1.blob.core.chinacloudapi.cn/models/run%201/checkpoint-20"
    public = AzureDestination(**plain, account_name="acc1", public_base_url="https://cdn.example/x/")
    assert public.uri_of(manifest) == "https://cdn.example/x/a%20b/run%201/checkpoint-20"
    uri = str(named.uri_of(manifest))
    assert AzureDestination.entry_of_uri(uri) == {
        "provider": "azure_blob", "account_url": "https://acc1.blob.core.windows.net", "container": "models",
    }  # fmt: skip
    assert AzureDestination.entry_of_uri("https://example.com/models/run") is None


@pytest.mark.parametrize("provider", ["azure", "azure_blob", " Azure "])
def test_the_documents_entry_is_taken(provider: str) -> None:
    secret = "DefaultEndpointsProtocol=https;AccountName=acc1;AccountKey=Zm9v"
    entry = {
        "provider": provider,
        "connection_string": secret,
        "container": "simpletuner",
        "base_path": "models/latest",
    }
    [destination] = open_destinations([entry])
    assert destination.provider == "azure_blob"
    [destination] = open_destinations([{"type": provider, "container_name": "abc", "account_name": "acc1"}])
    assert isinstance(destination, AzureDestination)
    assert destination.container == "abc"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "says of no account"),
        ({"account_name": "acc1", "container": "A"}, "3 to 63 small letters"),
        ({"account_name": "acc1", "container": "models/x"}, "belongs into base_path"),
        ({"account_name": "https://acc1"}, "addresses go into account_url"),
        ({"account_url": "acc1.blob.core.windows.net"}, "must be an address"),
        ({"account_url": "https://acc1.blob.core.windows.net/?sv=1&sig=canary"}, "give it as sas_token"),
        ({"account_name": "acc1", "account_key": "canary!"}, "not a key of an account"),
        ({"account_name": "acc1", "sas_token": "canary"}, "no signature in it"),
        ({"account_name": "acc1", "account_key": "Zm9v", "sas_token": "sig=canary"}, "give one of them"),
        ({"connection_string": "canary"}, "names no account"),
        ({"connection_string": "AccountName=acc1"}, "no AccountKey"),
        ({"connection_string": "AccountName=acc1;AccountKey=canary", "account_key": "Zm9v"}, "leave out account_key"),
        ({"connection_string": "AccountName=acc1;AccountKey=canary", "account_name": "acc2"}, "leave it out"),
        ({"account_url": "http://host", "account_name": "acc1"}, "needs https"),
        ({"account_url": "https://host", "account_key": "Zm9v"}, "give account_name"),
        ({"account_name": "acc1", "contianer": "x"}, "did you mean 'container'"),
    ],
)
def test_mistakes_are_named_before_anybody_is_asked(settings: dict[str, str], problem: str) -> None:
    faults = check_entries([{"provider": "azure", "container": "models", **settings}])
    assert problem in " ".join(map(str, faults))
    assert "canary" not in " ".join(map(str, faults))
