"""Every fault at every kind of request of every provider: whole and proved, or a failure that says what is missing."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flowtuner.errors import DestinationDown, FlowtunerError, PublishError
from flowtuner.publishing.manifest import MANIFEST_NAME, parse_manifest
from flowtuner.publishing.snapshot import Snapshot
from tests.blocks.conftest import RUN, ignore, take_checkpoint
from tests.blocks.faulted import PROVIDERS, Faulted
from tests.fakes.faultproxy import FaultProxy, Rule

pytestmark = pytest.mark.slow

ATTEMPTS = 5  # as often as the flow's task tries
PREFIX = f"{RUN}/checkpoint-20"
OLD = {"weights.safetensors": b"old weights", "state.json": b"{}", "gone.bin": b"gone"}
NEW = {"weights.safetensors": os.urandom(6 << 20), "state.json": b'{"step": 20}', "a b/ü+.bin": b"moments"}
FAULTS = {
    "cut at once": Rule("cut"),
    "cut in the middle": Rule("cut", after=500_000),
    "reply dropped": Rule("drop_reply"),
    "reply cut": Rule("cut_reply", after=10),
    "wrong bytes": Rule("garble"),
    "wrong bytes in the reply": Rule("garble_reply"),
    "500": Rule("status", code=500),
    "503": Rule("status", code=503, headers={"Retry-After": "0"}),
    "429": Rule("status", code=429, headers={"Retry-After": "1"}),
    "stall": Rule("stall"),
}
CASES = [(name, kind, fault) for name, provider in PROVIDERS.items() for kind in provider.kinds for fault in FAULTS]
ENDS_AT = range(1, 13)  # the request from which on a credential is no longer good


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """One attempt by the SDK and short waits, so that our own going on is what is tested."""
    monkeypatch.setattr("blocks.s3.ATTEMPTS", 1)
    monkeypatch.setattr("blocks.azure.ATTEMPTS", 2)
    monkeypatch.setattr("blocks.parts.azure_retry.FIRST_WAIT_S", 0.01)
    for module in ("blocks.s3", "blocks.azure"):
        monkeypatch.setattr(f"{module}.READ_TIMEOUT_S", 3)


@pytest.fixture
def provider(request: pytest.FixtureRequest, name: str) -> Faulted:
    return PROVIDERS[name](request)


@pytest.fixture
def proxy(provider: Faulted) -> Iterator[FaultProxy]:
    with FaultProxy(provider.port) as proxy:
        yield proxy


@pytest.fixture
def azure_port(azurite_port: int) -> int:
    return azurite_port


def take(tmp_path: Path, name: str, files: dict[str, bytes]) -> Snapshot:
    return take_checkpoint(tmp_path / name, 20, files)


def publish_stubbornly(provider: Faulted, proxy: FaultProxy, snapshot: Snapshot, *, is_renewed: bool = False) -> bool:
    """Publishes as often as the flow's task would; nothing is kept from one attempt to the next."""
    destination = provider.open(proxy.url, is_renewed=is_renewed)
    for _ in range(ATTEMPTS):
        try:
            return destination.publish(snapshot, ignore).verified
        except DestinationDown as error:
            assert str(error)
    return False


def assert_nothing_half_looks_whole(provider: Faulted, snapshots: list[Snapshot], is_published: bool) -> None:
    found = {key.removeprefix(f"{PREFIX}/"): data for key, data in provider.contents().items()}
    marker = found.get(MANIFEST_NAME)
    assert marker is not None or not is_published
    manifest = parse_manifest(marker)
    if marker is not None:
        assert manifest is not None
        [snapshot] = [each for each in snapshots if each.manifest.describes_same(manifest)]
        assert snapshot is snapshots[-1] or not is_published
        for record in manifest.files:
            assert found[record.path] == (snapshot.folder / record.path).read_bytes(), record.path


def assert_nothing_local_is_gone(snapshots: list[Snapshot]) -> None:
    for snapshot, files in zip(snapshots, (OLD, NEW), strict=True):
        assert {name: (snapshot.folder / name).read_bytes() for name in files} == files


@pytest.mark.parametrize(("name", "kind", "fault"), CASES, ids=["-".join(case) for case in CASES])
def test_one_kind_of_request_is_broken(
    tmp_path: Path, provider: Faulted, proxy: FaultProxy, name: str, kind: str, fault: str
) -> None:
    chance = random.Random(f"{name} {kind} {fault}")
    snapshots = [take(tmp_path, "old", OLD), take(tmp_path, "new", NEW)]
    assert publish_stubbornly(provider, proxy, snapshots[0])
    request = provider.kinds[kind]
    times = 1 if fault == "stall" else chance.choice([1, 1, 2, 3, 99])
    nth = chance.choice([1, 1, 2])
    proxy.rules = [replace(FAULTS[fault], method=request.method, path=request.path, nth=nth, times=times)]
    is_published = False
    try:
        is_published = publish_stubbornly(provider, proxy, snapshots[1])
    except FlowtunerError as error:
        assert str(error)
        assert "canary" not in str(error).lower()
    assert_nothing_half_looks_whole(provider, snapshots, is_published)
    proxy.clear()  # the service is well again
    assert publish_stubbornly(provider, proxy, snapshots[1])
    assert_nothing_half_looks_whole(provider, snapshots, True)
    assert_nothing_local_is_gone(snapshots)
    assert provider.unfinished() == 0


@pytest.mark.parametrize("nth", ENDS_AT)
@pytest.mark.parametrize("is_expired", [True, False], ids=["expired", "revoked"])
@pytest.mark.parametrize("name", PROVIDERS)
def test_a_credential_ends_on_the_way_and_is_replaced(
    tmp_path: Path, provider: Faulted, proxy: FaultProxy, is_expired: bool, nth: int
) -> None:
    snapshots = [take(tmp_path, "old", OLD), take(tmp_path, "new", NEW)]
    assert publish_stubbornly(provider, proxy, snapshots[0])
    proxy.rules = [replace(provider.refusal(is_expired=is_expired), nth=nth)]
    is_published = False
    try:
        is_published = publish_stubbornly(provider, proxy, snapshots[1])
    except PublishError as error:
        assert "canary" not in str(error).lower()
    assert is_published == (not any(seen.action for seen in proxy.log))
    assert_nothing_half_looks_whole(provider, snapshots, is_published)
    assert publish_stubbornly(provider, proxy, snapshots[1], is_renewed=True)
    assert_nothing_half_looks_whole(provider, snapshots, True)
    assert_nothing_local_is_gone(snapshots)
    assert provider.unfinished() == 0
