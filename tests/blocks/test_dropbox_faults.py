"""The Dropbox destination behind a proxy that breaks requests of each kind: whole, or a failure that says why."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blocks.dropbox import DropboxDestination
from flowtuner.errors import DestinationDown, FlowtunerError, PublishError
from flowtuner.publishing.manifest import MANIFEST_NAME, parse_manifest
from flowtuner.publishing.snapshot import Snapshot
from tests.blocks.conftest import DROPBOX_TOKEN, RUN, ignore, lead_to, take_checkpoint
from tests.fakes.dropbox.account import Account
from tests.fakes.dropbox.server import FakeDropbox
from tests.fakes.faultproxy import FaultProxy, Rule

UNIT = 1 << 16  # what stands for a MiB here: the order of the requests is the same
OLD = {"weights.safetensors": b"old weights", "gone-a.bin": b"a", "gone-b.bin": b"b", "same.json": b"{}"}
NEW = {"weights.safetensors": os.urandom(11 * UNIT), "same.json": b"{}", "a b/ü.bin": b"moments"}
PREFIX = f"/team/{RUN}/checkpoint-20"
JSON = {"Content-Type": "application/json"}
LATER = '{"error_summary": "x/", "error": {"reason": {".tag": "too_many_requests"}, "retry_after": 0}}'
ATTEMPTS = 5  # as often as the flow's task tries
SEEDS = 40

KINDS = {
    "read the manifest": "files/download",
    "list": "files/list_folder",
    "ask for room": "users/get_space_usage",
    "begin a session": "upload_session/start$",
    "append": "upload_session/append_v2",
    "begin many sessions": "upload_session/start_batch",
    "append to many": "upload_session/append_batch",
    "finish many": "upload_session/finish_batch_v2",
    "write the manifest": "files/upload$",
    "delete one": "files/delete_v2",
    "delete many": "files/delete_batch$",
    "ask whether they are deleted": "files/delete_batch/check",
    "find the link": "sharing/list_shared_links",
    "make the link": "sharing/create_shared_link",
    "renew the token": "oauth2/token",
}
FAULTS = {
    "cut at once": Rule("cut"),
    "cut in the middle": Rule("cut", after=UNIT),
    "reply dropped": Rule("drop_reply"),
    "reply cut": Rule("cut_reply", after=10),
    "reply garbled": Rule("garble_reply"),
    "500": Rule("status", code=500),
    "503": Rule("status", code=503, headers={"Retry-After": "1"}),
    "429": Rule("status", code=429, headers={"Retry-After": "0"}),
    "429 in JSON": Rule("status", code=429, headers=JSON, body=LATER),
    "stall": Rule("stall"),
}
# What has no digest of its own is kept whole by TLS; garbled bodies are those that the service can prove.
GARBLED = ("append", "append to many", "write the manifest")
CASES = [(kind, fault) for kind in KINDS for fault in FAULTS] + [(kind, "garbled") for kind in GARBLED]
FEW = [("append", "cut in the middle"), ("finish many", "reply dropped"), ("write the manifest", "503")]


@pytest.fixture
def proxy(account: Account, dropbox_server: FakeDropbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(dropbox_server.port) as proxy:
        lead_to(proxy.port, monkeypatch)
        monkeypatch.setattr("blocks.dropbox.READ_TIMEOUT_S", 1)
        monkeypatch.setattr("blocks.dropbox.MIB", UNIT)
        yield proxy


def open_destination(**settings: Any) -> DropboxDestination:
    return DropboxDestination(**{"token": DROPBOX_TOKEN, "base_path": "team", "chunk_mib": 4, **settings})


def renewing(account: Account) -> dict[str, Any]:
    account.refresh_tokens["canary-refresh"] = ("canary-app", None)
    return {"token": None, "refresh_token": "canary-refresh", "app_key": "canary-app"}


def publish_stubbornly(snapshot: Snapshot, **settings: Any) -> bool:
    """Publishes with a fresh destination for every attempt, as processes that die would."""
    for _ in range(ATTEMPTS):
        try:
            return open_destination(**settings).publish(snapshot, ignore).verified
        except DestinationDown:
            continue
    return False


def files_in(account: Account) -> dict[str, bytes]:
    return {file.path.removeprefix(f"{PREFIX}/"): file.data for file in account.files.values()}


def assert_nothing_half_looks_whole(account: Account, snapshot: Snapshot, is_published: bool) -> None:
    found = files_in(account)
    marker = parse_manifest(found.get(MANIFEST_NAME))
    assert marker is not None or not is_published
    if marker is not None:
        told = NEW if marker.describes_same(snapshot.manifest) else OLD
        assert {record.path: found.get(record.path) for record in marker.files} == told
    assert not is_published or {name: found.get(name) for name in NEW} == NEW
    assert {name: (snapshot.folder / name).read_bytes() for name in NEW} == NEW


def assert_it_comes_right(account: Account, proxy: FaultProxy, snapshot: Snapshot, **settings: Any) -> None:
    proxy.clear()  # the service is well again
    assert publish_stubbornly(snapshot, **settings)
    assert files_in(account) == {MANIFEST_NAME: files_in(account)[MANIFEST_NAME], **NEW}
    marker = parse_manifest(files_in(account)[MANIFEST_NAME])
    assert marker is not None
    assert marker.describes_same(snapshot.manifest)
    assert open_destination(**settings).verify(snapshot.manifest, deep=True) == []
    assert [path.name for path in snapshot.folder.parent.iterdir()] == [snapshot.name]  # no note of a session is left


def take_successor(tmp_path: Path) -> Snapshot:
    """A checkpoint of other bytes at the place of one that is published."""
    assert open_destination().publish(take_checkpoint(tmp_path / "old", 20, OLD), ignore).verified
    return take_checkpoint(tmp_path, 20, NEW)


def rule_for(kind: str, fault: str, nth: int = 1, times: int = 1) -> Rule:
    broken = Rule("garble") if fault == "garbled" else FAULTS[fault]
    return replace(broken, path=KINDS[kind], nth=nth, times=times)


def try_it(tmp_path: Path, account: Account, proxy: FaultProxy, rules: list[Rule]) -> bool:
    snapshot = take_successor(tmp_path)
    account.links.clear()
    proxy.rules = rules
    is_published = False
    try:
        is_published = publish_stubbornly(snapshot, **renewing(account))
    except FlowtunerError as error:
        assert "canary" not in str(error).lower()
        assert "dropbox:team" in str(error)
    assert_nothing_half_looks_whole(account, snapshot, is_published)
    assert_it_comes_right(account, proxy, snapshot, **renewing(account))
    return is_published


@pytest.mark.parametrize(("kind", "fault"), FEW)
def test_one_broken_request_of_some_kinds(
    tmp_path: Path, account: Account, proxy: FaultProxy, kind: str, fault: str
) -> None:
    rule = rule_for(kind, fault)
    assert try_it(tmp_path, account, proxy, [rule])
    assert rule.times == 0


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "fault"), CASES)
def test_one_broken_request_of_each_kind(
    tmp_path: Path, account: Account, proxy: FaultProxy, kind: str, fault: str
) -> None:
    rule = rule_for(kind, fault)
    is_published = try_it(tmp_path, account, proxy, [rule])
    assert rule.times == 0, "no such request was made"
    # An answer that is whole and false may be a refusal; everything else is got over.
    assert is_published or fault == "reply garbled"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_breaks_nothing_half_looks_whole(
    tmp_path: Path, account: Account, proxy: FaultProxy, seed: int
) -> None:
    chance = random.Random(seed)
    cases = [chance.choice(CASES) for _ in range(chance.randint(2, 4))]
    rules = [rule_for(*case, nth=chance.randint(1, 3), times=chance.choice([1, 1, 2, 9])) for case in cases]
    for rule in rules:
        rule.after = chance.choice([rule.after, 0, 1, 1000, 3 * UNIT])
    try_it(tmp_path, account, proxy, rules)


ROUTES = ("files/upload_session/append_v2", "files/upload_session/finish_batch_v2", "files/upload", "files/list_folder")


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("change", ["expired", "revoked"])
def test_a_token_that_ends_on_the_way(
    tmp_path: Path, account: Account, proxy: FaultProxy, route: str, change: str
) -> None:
    snapshot = take_successor(tmp_path)

    def end(asked: str) -> None:
        if asked == route:
            account.hooks.clear()
            for token in account.tokens.values():
                token.expires = 0
            if change == "revoked":
                account.tokens.clear()

    account.hooks.append(end)
    with pytest.raises(PublishError, match="has expired" if change == "expired" else "revoked") as caught:
        publish_stubbornly(snapshot)
    assert "canary" not in str(caught.value)
    assert_nothing_half_looks_whole(account, snapshot, False)
    account.grant("canary-replaced")
    assert_it_comes_right(account, proxy, snapshot, token="canary-replaced")


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
def test_a_token_that_expires_on_the_way_is_renewed_by_itself(
    tmp_path: Path, account: Account, proxy: FaultProxy, route: str
) -> None:
    snapshot = take_successor(tmp_path)

    def expire(asked: str) -> None:
        if asked == route:
            account.hooks.clear()
            account.tokens.clear()
            account.grant("gone", lifetime_s=-1)
            raise_expired()

    account.hooks.append(expire)
    assert open_destination(**renewing(account)).publish(snapshot, ignore).verified
    assert_it_comes_right(account, proxy, snapshot, **renewing(account))


def raise_expired() -> None:
    from tests.fakes.dropbox.account import Refusal

    raise Refusal(401, {".tag": "expired_access_token"})


@pytest.mark.slow
@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("nth", [1, 2])
def test_reading_back_behind_broken_requests(
    tmp_path: Path, account: Account, proxy: FaultProxy, fault: str, nth: int
) -> None:
    snapshot = take_checkpoint(tmp_path, 20, NEW)
    assert publish_stubbornly(snapshot)
    proxy.rules = [replace(FAULTS[fault], path="files/download", nth=nth, after=9)]
    open_destination().fetch(snapshot.manifest, tmp_path / "back", ignore)
    assert {name: (tmp_path / "back" / name).read_bytes() for name in NEW} == NEW


def test_who_is_stopped_does_not_wait_for_a_service_that_hangs(
    tmp_path: Path, account: Account, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks.dropbox.READ_TIMEOUT_S", 60)  # longer than this test may take
    snapshot = take_checkpoint(tmp_path, 20, NEW)
    proxy.rules = [rule_for("append", "stall")]

    def stop(done: int, total: int) -> None:
        if any(seen.action == "stall" for seen in proxy.log):
            raise PublishError("the run was stopped")

    with pytest.raises(PublishError, match="stopped"):
        open_destination().publish(snapshot, stop)
    assert files_in(account) == {}


PUBLISH = """
import pickle, sys
import blocks.dropbox as module
from tests.fakes.dropbox.server import session_to
module.open_session = lambda: session_to(int(sys.argv[1]))
module.MIB = int(sys.argv[2])
with open(sys.argv[3], "rb") as file:
    snapshot = pickle.load(file)
module.DropboxDestination(token=sys.argv[4], base_path="team", chunk_mib=4).publish(snapshot, lambda done, total: None)
"""


@pytest.mark.slow
@pytest.mark.parametrize("held", [1, 2, 3])
def test_a_killed_process_is_followed_by_one_that_sends_only_the_rest(
    tmp_path: Path, account: Account, proxy: FaultProxy, held: int
) -> None:
    snapshot = take_checkpoint(tmp_path, 20, NEW)
    (tmp_path / "snapshot").write_bytes(pickle.dumps(snapshot))
    proxy.rules = [rule_for("append", "stall", nth=held)]
    arguments = map(str, (proxy.port, UNIT, tmp_path / "snapshot", DROPBOX_TOKEN))
    root = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen([sys.executable, "-c", PUBLISH, *arguments], cwd=root) as process:
        while not any(seen.action == "stall" for seen in proxy.log):
            assert process.poll() is None
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        process.kill()
    proxy.clear()
    assert_it_comes_right(account, proxy, snapshot)
    sent = sum(seen.size for seen in proxy.log if "append_v2" in seen.path)
    assert sent == 11 * UNIT - (held - 1) * 4 * UNIT


pytestmark = pytest.mark.timeout(60)
