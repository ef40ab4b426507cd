"""The Hub destination behind a proxy that breaks requests: whole and proved, or a failure that says why."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import blocks.huggingface
from blocks.huggingface import HuggingFaceDestination
from blocks.parts.hub_session import Limits
from flowtuner.errors import DestinationDown, FlowtunerError, PublishError
from flowtuner.publishing.manifest import MANIFEST_NAME
from flowtuner.publishing.snapshot import Snapshot
from tests.blocks.conftest import ignore, take_checkpoint
from tests.fakes.faultproxy import Action, FaultProxy, Rule
from tests.fakes.hub.accounts import ALICE
from tests.fakes.hub.server import Hub

REPO = "alice/fox-lora"
FILES = {
    "transformer/weights.safetensors": os.urandom(6 << 20),  # in two parts
    "optimizer.bin": os.urandom(1 << 16),
    "training_state.json": b"{}",
    "a b/\u00fc+.txt": b"text",
}
Kinds = Mapping[str, tuple[str, str]]
KINDS: Kinds = {
    "preupload": ("POST", "/preupload/"),
    "batch": ("POST", "objects/batch"),
    "part": ("PUT", r"/_lfs/\w+/\d+"),
    "object": ("PUT", r"/_lfs/\w+$"),
    "complete": ("POST", "/complete"),
    "commit": ("POST", "/commit/"),
    "tree": ("GET", "/tree/"),
    "info": ("GET", "/api/models/alice/fox-lora/revision"),
    "manifest": ("GET", MANIFEST_NAME),
    "create": ("POST", "/repos/create"),
}
ACTIONS: tuple[Action, ...] = ("cut", "drop_reply", "status", "garble", "cut_reply", "garble_reply", "stall")
CODES = ((500, {}), (503, {}), (429, {"Retry-After": "0"}), (401, {}))
ATTEMPTS = 5  # as often as the flow's task tries
SEEDS = 70  # kinds times actions


@pytest.fixture
def proxy(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with patient_proxy(hub, monkeypatch) as proxy:
        yield proxy


def patient_proxy(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> FaultProxy:
    """A proxy before the Hub; silence is told apart from work within a second, the client's waits are left out."""
    monkeypatch.setattr(blocks.huggingface, "LIMITS", Limits(connect_s=5, silent_s=1.5, slowest_bps=1 << 20))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    return FaultProxy(hub.port)


def publish_stubbornly(url: str, snapshot: Snapshot) -> bool:
    """Publishes with a fresh destination for every attempt, as processes that die would."""
    for _ in range(ATTEMPTS):
        try:
            return open_destination(url).publish(snapshot, ignore).verified
        except DestinationDown:
            continue
    return False


def open_destination(url: str, **settings: Any) -> HuggingFaceDestination:
    return HuggingFaceDestination(**{"repo_id": REPO, "endpoint": url, **settings})


def assert_whole_or_absent(hub: Hub, snapshot: Snapshot, *, is_published: bool) -> None:
    found = hub.files(REPO) if REPO in hub.state.repos else {}
    inside = {path.removeprefix("checkpoint-20/"): data for path, data in found.items() if path.startswith("check")}
    whole = FILES | {MANIFEST_NAME: snapshot.manifest.to_bytes()}
    assert inside == whole or (not is_published and MANIFEST_NAME not in inside)
    titles = hub.titles(REPO) if REPO in hub.state.repos else []
    taken_back = sum(title.startswith("Take back") for title in titles)
    assert titles.count("Checkpoint of step 20") <= 1 + taken_back, "a lost answer must not make a second commit"
    assert {name: (snapshot.folder / name).read_bytes() for name in FILES} == FILES


def faults(seed: int, requests: Kinds) -> Iterator[Rule]:
    """One to three broken requests; the first goes through all kinds of requests and of faults, the others anywhere."""
    chance = random.Random(seed)
    kinds = list(requests)
    for number in range(chance.randint(1, 3)):
        method, path = requests[kinds[seed % len(kinds)] if not number else chance.choice(kinds)]
        code, headers = chance.choice(CODES)
        yield Rule(
            ACTIONS[(seed // len(kinds)) % len(ACTIONS)] if not number else chance.choice(ACTIONS[:-1]),
            method,
            path,
            nth=chance.randint(1, 2) if number else 1,
            times=chance.randint(1, 3) if number else 1,
            after=chance.choice([0, 1, 1000]),
            code=code,
            headers=dict(headers),
            body='{"error": "broken"}',
        )


def check(seed: int, tmp_path: Path, hub: Hub, proxy: FaultProxy, requests: Kinds = KINDS) -> None:
    snapshot = take_checkpoint(tmp_path, 20, FILES)
    proxy.rules = list(faults(seed, requests))
    is_published = False
    try:
        is_published = publish_stubbornly(proxy.url, snapshot)
    except FlowtunerError as error:
        assert str(error)
        assert ALICE not in str(error)
    assert_whole_or_absent(hub, snapshot, is_published=is_published)
    proxy.clear()  # the Hub is well again
    assert publish_stubbornly(proxy.url, snapshot)
    assert_whole_or_absent(hub, snapshot, is_published=True)


@pytest.mark.parametrize("seed", [5, 15, 33, 67])
def test_a_few_broken_requests(tmp_path: Path, hub: Hub, proxy: FaultProxy, seed: int) -> None:
    check(seed, tmp_path, hub, proxy)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_breaks_nothing_half_looks_whole(tmp_path: Path, hub: Hub, proxy: FaultProxy, seed: int) -> None:
    check(seed, tmp_path, hub, proxy)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_token_that_is_revoked_in_mid_course_and_then_replaced(
    tmp_path: Path, hub: Hub, proxy: FaultProxy, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_revoked(*KINDS[kind], tmp_path, hub, proxy, monkeypatch)


def check_revoked(
    method: str, path: str, tmp_path: Path, hub: Hub, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = take_checkpoint(tmp_path, 20, FILES)
    proxy.rules = [Rule("status", method, path, times=99, code=401, carries=ALICE, body='{"error": "revoked"}')]
    try:
        is_published = publish_stubbornly(proxy.url, snapshot)
    except PublishError as error:
        is_published = False
        assert "token" in str(error)
        assert ALICE not in str(error)
    assert_whole_or_absent(hub, snapshot, is_published=is_published)
    replacement = "hf_canaryReplacement"
    hub.state.accounts.tokens[replacement] = hub.state.accounts.tokens.pop(ALICE)
    monkeypatch.setenv("HF_TOKEN", replacement)
    assert publish_stubbornly(proxy.url, snapshot)
    assert_whole_or_absent(hub, snapshot, is_published=True)
