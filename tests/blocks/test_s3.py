"""The S3 destination on a server in memory: what is written, proved, resumed, refused and cleaned up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from blocks.parts.bucket import BucketStore
from blocks.s3 import MIB, S3Destination
from flowtuner.errors import DestinationDown, FlowtunerError, PublishError
from flowtuner.publishing.registry import open_destinations
from flowtuner.publishing.snapshot import freeze, release_unit
from tests.blocks.conftest import RUN, ignore, take_checkpoint
from tests.fakes.s3.servers import KEYS

BIG = {"transformer/weights.safetensors": os.urandom(11 * MIB), "training_state.json": b"{}"}


@pytest.fixture
def destination(s3: Any, s3_url: str) -> S3Destination:
    return open_destination(s3_url)


def open_destination(url: str, **settings: Any) -> S3Destination:
    base = {"bucket": "models", "endpoint_url": url, "base_path": "team/a", "region": "us-east-1", "part_mib": 5}
    return S3Destination(**{**base, **KEYS, **settings})


def keys_in(s3: Any) -> list[str]:
    return sorted(item["Key"] for item in s3.list_objects_v2(Bucket="models").get("Contents", ()))


def uploads_in(s3: Any) -> list[dict[str, Any]]:
    return list(s3.list_multipart_uploads(Bucket="models").get("Uploads", ()))


def watch(s3_destination: S3Destination, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records the operations that reach the server."""
    seen: list[str] = []
    connect = S3Destination._connect

    def connect_watched(self: S3Destination, *limits: int) -> Any:
        client = connect(self, *limits)
        client.meta.events.register("before-send.s3", lambda event_name, **_: seen.append(event_name.split(".")[-1]))
        return client

    monkeypatch.setattr(S3Destination, "_connect", connect_watched)
    return seen


def test_a_checkpoint_is_published_proved_and_not_sent_again(
    tmp_path: Path, s3: Any, destination: S3Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    progress: list[tuple[int, int]] = []
    result = destination.publish(snapshot, lambda done, total: progress.append((done, total)))
    prefix = f"team/a/{RUN}/checkpoint-20"
    assert keys_in(s3) == [f"{prefix}/{name}" for name in ("manifest.json", *sorted(BIG))]
    assert (result.verified, result.files, result.sent_files, result.sent_bytes) == (True, 2, 2, 11 * MIB + 2)
    assert progress[-1] == (11 * MIB + 2, 11 * MIB + 2)
    assert progress == sorted(progress)
    assert destination.verify(snapshot.manifest, deep=True) == []
    head = s3.head_object(Bucket="models", Key=f"{prefix}/training_state.json")
    assert head["ContentType"] == "application/json"
    assert head["Metadata"]["flowtuner-run"] == RUN
    assert head["Metadata"]["flowtuner-step"] == "20"
    assert head["Metadata"]["flowtuner-validation-type"] == "intermediary"

    seen = watch(destination, monkeypatch)
    again = destination.publish(snapshot, ignore)
    assert (again.sent_files, again.sent_bytes, again.manifest_sha256) == (0, 0, result.manifest_sha256)
    assert seen == ["GetObject", "ListObjectsV2"]


def test_an_unchanged_unit_is_listed_from_its_first_file_to_its_last(
    tmp_path: Path, destination: S3Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two thousand files behind the manifest's own name fill two pages, not three."""
    snapshot = take_checkpoint(tmp_path, 20, {"part-0": b"0", "part-1": b"1"})
    destination.publish(snapshot, ignore)
    listed: list[list[str]] = []
    sizes = BucketStore.sizes

    def watch_sizes(store: BucketStore, *arguments: Any) -> Any:
        listed.append(sorted(key.rpartition("/")[2] for key in sizes(store, *arguments)))
        return sizes(store, *arguments)

    monkeypatch.setattr(BucketStore, "sizes", watch_sizes)
    assert destination.publish(snapshot, ignore).sent_files == 0
    assert listed == [["part-0", "part-1"]]


def test_only_what_changed_travels_and_what_is_gone_is_removed(
    tmp_path: Path, s3: Any, destination: S3Destination
) -> None:
    output_dir = tmp_path / "out" / RUN
    for name, text in {"pipeline/a.bin": "a", "pipeline/b.bin": "b", "README.md": "card"}.items():
        (output_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (output_dir / name).write_text(text)
    destination.publish(freeze(release_unit(output_dir, "r1", 9, {})).seal(), ignore)
    s3.put_object(Bucket="models", Key=f"team/a/{RUN}/theirs.txt", Body=b"not ours")
    (output_dir / "pipeline/a.bin").unlink()
    (output_dir / "README.md").write_text("new card")
    result = destination.publish(freeze(release_unit(output_dir, "r1", 10, {})).seal(), ignore)
    assert (result.sent_files, result.sent_bytes) == (1, 8)
    assert keys_in(s3) == [
        f"team/a/{RUN}/{name}" for name in ("README.md", "manifest.json", "pipeline/b.bin", "theirs.txt")
    ]


def test_an_upload_cut_in_the_middle_stays_invisible_and_goes_on(
    tmp_path: Path, s3: Any, destination: S3Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = take_checkpoint(tmp_path, 20, BIG)

    def cut(done: int, total: int) -> None:
        if done:
            raise DestinationDown("the cable was pulled")

    with pytest.raises(DestinationDown):
        destination.publish(snapshot, cut)
    assert keys_in(s3) == []
    assert len(uploads_in(s3)) == 1
    key = f"team/a/{RUN}/checkpoint-20/transformer/weights.safetensors"
    there = s3.list_parts(Bucket="models", Key=key, UploadId=uploads_in(s3)[0]["UploadId"])["Parts"]

    seen = watch(destination, monkeypatch)
    fresh = open_destination(str(destination.endpoint_url))  # as another process would
    fresh.publish(snapshot, ignore)
    assert seen.count("UploadPart") == 3 - len(there)
    assert fresh.verify(snapshot.manifest, deep=True) == []
    assert uploads_in(s3) == []


@pytest.mark.slow
def test_parts_of_another_version_are_not_taken_for_this_one(
    tmp_path: Path, s3: Any, destination: S3Destination
) -> None:
    key = f"team/a/{RUN}/checkpoint-20/transformer/weights.safetensors"
    upload = s3.create_multipart_upload(Bucket="models", Key=key)["UploadId"]
    s3.upload_part(Bucket="models", Key=key, UploadId=upload, PartNumber=1, Body=os.urandom(5 * MIB))
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    destination.publish(snapshot, ignore)
    assert destination.verify(snapshot.manifest, deep=True) == []
    assert uploads_in(s3) == []


def test_a_storage_without_checksum_headers_gets_md5(
    tmp_path: Path, s3: Any, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers: list[str] = []
    connect = S3Destination._connect

    def connect_watched(self: S3Destination, *limits: int) -> Any:
        client = connect(self, *limits)
        client.meta.events.register(
            "before-send.s3", lambda request, **_: headers.extend(map(str.lower, request.headers))
        )
        return client

    monkeypatch.setattr(S3Destination, "_connect", connect_watched)
    destination = open_destination(s3_url, checksums="when_required")
    destination.probe()
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    destination.publish(snapshot, ignore)
    assert destination.verify(snapshot.manifest, deep=True) == []
    destination.prune(RUN, 1, "checkpoint-20")
    assert "content-md5" in headers
    assert not [name for name in headers if "checksum" in name or name == "if-none-match"]


@pytest.mark.slow
def test_files_in_one_request_each(tmp_path: Path, s3: Any, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    destination = open_destination(s3_url, force_single_part=True, storage_class="STANDARD_IA")
    seen = watch(destination, monkeypatch)
    destination.publish(take_checkpoint(tmp_path, 20, BIG), ignore)
    assert seen.count("PutObject") == 2  # the large one and the manifest; the small one goes without the SDK
    assert "UploadPart" not in seen
    key = f"team/a/{RUN}/checkpoint-20/training_state.json"
    assert s3.head_object(Bucket="models", Key=key)["StorageClass"] == "STANDARD_IA"


def test_headers_for_a_gateway_are_signed(
    tmp_path: Path, s3: Any, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    connect = S3Destination._connect

    def connect_watched(self: S3Destination, *limits: int) -> Any:
        client = connect(self, *limits)
        client.meta.events.register("before-send.s3", lambda request, **_: sent.append(dict(request.headers)))
        return client

    monkeypatch.setattr(S3Destination, "_connect", connect_watched)
    open_destination(s3_url, request_headers={"X-Team": "canary"}).probe()
    assert {headers["X-Team"] for headers in sent} == {"canary"} or {headers["X-Team"] for headers in sent} == {
        b"canary"
    }
    assert all("x-team" in str(headers["Authorization"]) for headers in sent)


def test_old_checkpoints_and_their_unfinished_uploads_go(tmp_path: Path, s3: Any, destination: S3Destination) -> None:
    for step in (20, 40, 60):
        destination.publish(take_checkpoint(tmp_path, step), ignore)
    prefix = f"team/a/{RUN}"
    s3.create_multipart_upload(Bucket="models", Key=f"{prefix}/checkpoint-20/late.bin")
    s3.create_multipart_upload(Bucket="models", Key=f"{prefix}/checkpoint-60/under-way.bin")
    s3.put_object(Bucket="models", Key=f"{prefix}/checkpoint-1/theirs", Body=b"no manifest of ours")
    assert destination.prune(RUN, 0, "checkpoint-60") == []
    assert destination.prune(RUN, 2, "checkpoint-60") == ["checkpoint-20"]
    assert {key.split("/")[3] for key in keys_in(s3)} == {"checkpoint-1", "checkpoint-40", "checkpoint-60"}
    assert [upload["Key"] for upload in uploads_in(s3)] == [f"{prefix}/checkpoint-60/under-way.bin"]
    with destination._open_store() as store:
        store.drop_unfinished(RUN)
    assert uploads_in(s3) == []


def test_two_runs_at_the_same_place_are_noticed(tmp_path: Path, s3: Any, destination: S3Destination) -> None:
    with destination._open_store() as store:
        store.write("x/manifest.json", b"theirs", is_new=True)
        with pytest.raises(PublishError, match="two runs"):
            store.write("x/manifest.json", b"ours", is_new=True)
        store.write("x/manifest.json", b"theirs", is_new=True)  # our own, when the first reply was lost


def test_a_file_that_changed_on_this_disk_is_not_published(tmp_path: Path, s3: Any, destination: S3Destination) -> None:
    snapshot = take_checkpoint(tmp_path, 20, BIG)
    for name in BIG:
        path = snapshot.folder / name
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        with pytest.raises(PublishError, match="other bytes than when it was frozen"):
            destination.publish(snapshot, ignore)
        path.write_bytes(data)
    assert f"team/a/{RUN}/checkpoint-20/manifest.json" not in keys_in(s3)


def test_the_probe_leaves_nothing_and_names_what_is_wrong(s3: Any, s3_url: str, destination: S3Destination) -> None:
    destination.probe()
    assert keys_in(s3) == []
    with pytest.raises(PublishError, match="Create the bucket"):
        open_destination(s3_url, bucket="nobodys").probe()
    with pytest.raises(PublishError, match="no credentials"):
        open_destination(s3_url, access_key=None, secret_key=None).probe()
    with pytest.raises(PublishError, match="profile"):
        open_destination(s3_url, access_key=None, secret_key=None, profile="nobodys").probe()


def test_uris_are_percent_encoded(tmp_path: Path) -> None:
    manifest = take_checkpoint(tmp_path, 20).manifest
    plain = {"bucket": "models", "base_path": " /a b/ "}
    aws = S3Destination(**plain)
    assert aws.uri_of(manifest) == "s3://models/a%20b/run%201/checkpoint-20"
    other = S3Destination(**plain, endpoint_url="https://s3.example/")
    assert other.uri_of(manifest) == "https://s3.example/models/a%20b/run%201/checkpoint-20"
    public = S3Destination(**plain, endpoint_url="https://s3.example", public_base_url="https://cdn.example/x/")
    assert public.uri_of(manifest) == "https://cdn.example/x/a%20b/run%201/checkpoint-20"
    assert (aws.name, aws.provider) == ("s3:models/a b", "s3")


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({}, "when_supported"),
        ({"endpoint_url": "https://s3.example"}, "when_supported"),
        ({"endpoint_url": "https://s3.eu-central-003.backblazeb2.com"}, "when_required"),
        (
            {"endpoint_url": "https://s3.eu-central-003.backblazeb2.com", "checksums": "when_supported"},
            "when_supported",
        ),
        ({"provider": "b2", "endpoint_url": "https://gateway.example"}, "when_required"),
    ],
)
def test_backblaze_gets_no_checksum_headers(settings: dict[str, str], rule: str) -> None:
    [destination] = open_destinations([{"provider": "s3", "bucket": "models", **KEYS, **settings}])
    with destination._open_store() as store:  # type: ignore[attr-defined]
        assert store.client.meta.config.request_checksum_calculation == rule


def test_credentials_of_the_environment_are_used(s3: Any, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    open_destination(s3_url, access_key=None, secret_key=None).probe()


@pytest.mark.parametrize("wrong", [FlowtunerError])
def test_every_refusal_is_one_of_ours(wrong: type[Exception], s3: Any, s3_url: str, tmp_path: Path) -> None:
    with pytest.raises(wrong):
        open_destination(s3_url, bucket="nobodys").publish(take_checkpoint(tmp_path, 20), ignore)
