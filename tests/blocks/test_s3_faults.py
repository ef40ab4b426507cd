"""The S3 destination on SeaweedFS behind a proxy that breaks requests: whole and proved, or a failure that says why."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks import s3 as s3_module
from blocks.s3 import MIB, S3Destination
from flowtuner.errors import DestinationDown, FlowtunerError, PublishError
from flowtuner.publishing.manifest import MANIFEST_NAME
from flowtuner.publishing.snapshot import Snapshot
from tests.blocks.conftest import RUN, ignore, take_checkpoint
from tests.fakes.faultproxy import Action, FaultProxy, Rule
from tests.fakes.s3.servers import KEYS

pytestmark = pytest.mark.slow

BIG = {"transformer/weights.safetensors": os.urandom(12 * MIB), "training_state.json": b"{}", "a b/ü+.bin": b"moments"}
SEEDS = 60
ATTEMPTS = 5  # as often as the flow's task tries


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """One attempt by the SDK and short waits, so that our own going on is what is tested."""
    monkeypatch.setattr(s3_module, "ATTEMPTS", 1)
    monkeypatch.setattr(s3_module, "READ_TIMEOUT_S", 5)


def open_destination(url: str, **settings: Any) -> S3Destination:
    return S3Destination(
        **{"bucket": "models", "endpoint_url": url, "region": "us-east-1", "part_mib": 5, **KEYS, **settings}
    )


def objects_in(client: Any) -> dict[str, bytes]:
    listed = client.list_objects_v2(Bucket="models").get("Contents", ())
    return {item["Key"]: client.get_object(Bucket="models", Key=item["Key"])["Body"].read() for item in listed}


def publish_stubbornly(url: str, snapshot: Snapshot, **settings: Any) -> bool:
    """Publishes with a fresh destination for every attempt, as processes that die would."""
    for _ in range(ATTEMPTS):
        try:
            return open_destination(url, **settings).publish(snapshot, ignore).verified
        except DestinationDown:
            continue
    return False


def assert_whole_or_unmarked(client: Any, snapshot: Snapshot, is_published: bool) -> None:
    prefix = f"{RUN}/checkpoint-20"
    found = objects_in(client)
    has_marker = f"{prefix}/{MANIFEST_NAME}" in found
    assert has_marker or not is_published
    if has_marker:
        assert {key.removeprefix(f"{prefix}/"): data for key, data in found.items()} == {
            MANIFEST_NAME: snapshot.manifest.to_bytes(),
            **BIG,
        }
    assert {name: (snapshot.folder / name).read_bytes() for name in BIG} == BIG


@pytest.mark.parametrize("checksums", ["when_supported", "when_required"])
def test_a_real_server_takes_and_proves_everything(
    tmp_path: Path, weed: Any, proxy: FaultProxy, checksums: str
) -> None:
    destination = open_destination(proxy.url, checksums=checksums)
    destination.probe()
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    assert destination.publish(snapshot, ignore).verified
    small = [seen for seen in proxy.log if seen.method == "PUT" and ("training" in seen.path or "%2B" in seen.path)]
    assert [seen.status for seen in small] == [200] * 2  # in one request each, signed by ourselves
    assert_whole_or_unmarked(weed, snapshot, True)
    assert destination.verify(snapshot.manifest, deep=True) == []
    assert not weed.list_multipart_uploads(Bucket="models").get("Uploads")
    proxy.clear()
    assert destination.publish(snapshot, ignore).sent_bytes == 0
    assert len(proxy.log) <= 3
    assert proxy.payload == 0


def test_wrong_credentials_are_told_apart_and_never_shown(weed: Any, proxy: FaultProxy) -> None:
    with pytest.raises(PublishError, match="secret key does not belong") as caught:
        open_destination(proxy.url, secret_key="canary-wrong").probe()
    assert "canary" not in str(caught.value)
    with pytest.raises(PublishError, match="does not know this access key") as caught:
        open_destination(proxy.url, access_key="AKIACANARYNOBODY").probe()
    assert "AKIACANARYNOBODY" not in str(caught.value)
    with pytest.raises(PublishError, match="Create the bucket"):
        open_destination(proxy.url, bucket="nobodys").probe()


def test_a_storage_that_refuses_checksum_headers_names_the_remedy(tmp_path: Path, weed: Any, proxy: FaultProxy) -> None:
    body = "<Error><Code>InvalidArgument</Code><Message>Unsupported header x-amz-checksum-sha256</Message></Error>"
    proxy.rules = [Rule("status", "PUT", code=400, body=body, times=99)]
    with pytest.raises(PublishError, match='"checksums": "when_required"'):
        open_destination(proxy.url).publish(take_checkpoint(tmp_path, 20, BIG), ignore)


def test_parts_that_arrived_are_not_sent_again_by_another_process(tmp_path: Path, weed: Any, proxy: FaultProxy) -> None:
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    proxy.rules = [Rule("cut", "PUT", "partNumber=3", after=1000, times=1)]
    with pytest.raises(DestinationDown):
        open_destination(proxy.url).publish(snapshot, ignore)
    assert objects_in(weed) == {}
    upload = weed.list_multipart_uploads(Bucket="models")["Uploads"][0]
    there = weed.list_parts(Bucket="models", Key=upload["Key"], UploadId=upload["UploadId"]).get("Parts", ())
    proxy.clear()
    assert open_destination(proxy.url).publish(snapshot, ignore).verified
    sent = [seen for seen in proxy.log if "partNumber" in seen.path]
    assert len(sent) == 3 - len(there)
    assert_whole_or_unmarked(weed, snapshot, True)


@pytest.mark.parametrize("path", ["partNumber=2", "training_state"])
def test_who_is_stopped_does_not_wait_for_a_storage_that_hangs(
    tmp_path: Path, weed: Any, proxy: FaultProxy, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "READ_TIMEOUT_S", 20)
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    proxy.rules = [Rule("stall", "PUT", path, times=9)]
    started = time.monotonic()

    def stop(done: int, total: int) -> None:
        if any(seen.action == "stall" for seen in proxy.log):
            raise PublishError("the run was stopped")

    with pytest.raises(PublishError, match="stopped"):
        open_destination(proxy.url).publish(snapshot, stop)
    assert time.monotonic() - started < 15


def test_uploads_that_nobody_completed_are_given_up_after_their_time(weed: Any, weed_port: int) -> None:
    weed.create_multipart_upload(Bucket="models", Key=f"{RUN}/checkpoint-1/w")
    weed.create_multipart_upload(Bucket="models", Key=f"{RUN}0/checkpoint-1/w")
    with open_destination(f"http://127.0.0.1:{weed_port}")._open_store() as store:
        store.drop_unfinished(RUN, 3600)
        assert len(weed.list_multipart_uploads(Bucket="models")["Uploads"]) == 2
        store.drop_unfinished(RUN)
    assert [each["Key"] for each in weed.list_multipart_uploads(Bucket="models")["Uploads"]] == [
        f"{RUN}0/checkpoint-1/w"
    ]


def faults(seed: int) -> Iterator[Rule]:
    """One to three broken requests of any kind at any place."""
    chance = random.Random(seed)
    actions: tuple[Action, ...] = ("cut", "status", "drop_reply", "garble", "cut", "drop_reply")
    for _ in range(chance.randint(1, 3)):
        code, name = chance.choice([(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")])
        yield Rule(
            "stall" if chance.random() < 0.05 else chance.choice(actions),
            chance.choice(["PUT", "POST", "GET", "DELETE", "HEAD", ""]),
            chance.choice(["", "", "partNumber", MANIFEST_NAME, "uploads", "uploadId", "list-type"]),
            nth=chance.randint(1, 3),
            times=chance.randint(1, 3),
            after=chance.choice([0, 1, 1000, 3 * MIB]),
            code=code,
            headers={"Retry-After": "1"} if code == 429 else {},
            body=f"<Error><Code>{name}</Code><Message>later</Message></Error>",
        )


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_breaks_nothing_half_looks_whole(tmp_path: Path, weed: Any, proxy: FaultProxy, seed: int) -> None:
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    proxy.rules = list(faults(seed))
    checksums = "when_required" if seed % 4 == 3 else "when_supported"
    is_published = False
    try:
        is_published = publish_stubbornly(proxy.url, snapshot, checksums=checksums)
    except FlowtunerError as error:
        assert str(error)
        assert "canary" not in str(error).lower()
    assert_whole_or_unmarked(weed, snapshot, is_published)
    proxy.clear()  # the storage is well again
    assert publish_stubbornly(proxy.url, snapshot, checksums=checksums)
    assert_whole_or_unmarked(weed, snapshot, True)
    assert not weed.list_multipart_uploads(Bucket="models").get("Uploads")
