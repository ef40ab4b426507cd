"""The Hub destination over the xet protocol, with the official client, behind a proxy that breaks requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blocks.conftest import leave_sign_in_alone, reset_hub
from tests.blocks.test_hub_faults import KINDS, Kinds, check, check_revoked, patient_proxy
from tests.fakes.faultproxy import FaultProxy
from tests.fakes.hub.accounts import ALICE
from tests.fakes.hub.server import Hub, serve

LFS = ("batch", "part", "object", "complete")
XET: Kinds = {kind: request for kind, request in KINDS.items() if kind not in LFS} | {
    "xet token": ("GET", "xet-write-token"),
    "container": ("POST", "/_cas/v1/xorbs/"),
    "shard": ("POST", "/_cas/v1/shards"),
    "known chunk": ("GET", "/_cas/v1/chunks/"),
}
SEEDS = 70  # kinds times actions


@pytest.fixture(scope="session")
def xet_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with serve(tmp_path_factory.mktemp("xet-hub"), has_xet=True) as hub:
        yield hub


@pytest.fixture
def hub(xet_server: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    leave_sign_in_alone(monkeypatch, tmp_path, has_xet=True)
    reset_hub(xet_server)
    monkeypatch.setenv("HF_TOKEN", ALICE)
    settings = {"XORB_COMPRESSION_POLICY": "none", "CLIENT_READ_TIMEOUT": "1500ms", "CLIENT_RETRY_BASE_DELAY": "10ms"}
    for name, value in settings.items():
        monkeypatch.setenv(f"HF_XET_{name}", value)
    return xet_server


@pytest.fixture
def proxy(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with patient_proxy(hub, monkeypatch) as proxy:
        yield proxy


@pytest.mark.parametrize("seed", [6, 17, 27, 63])
def test_a_few_broken_requests(tmp_path: Path, hub: Hub, proxy: FaultProxy, seed: int) -> None:
    check(seed, tmp_path, hub, proxy, XET)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_breaks_nothing_half_looks_whole(tmp_path: Path, hub: Hub, proxy: FaultProxy, seed: int) -> None:
    check(seed, tmp_path, hub, proxy, XET)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(XET))
def test_a_token_that_is_revoked_in_mid_course_and_then_replaced(
    tmp_path: Path, hub: Hub, proxy: FaultProxy, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_revoked(*XET[kind], tmp_path, hub, proxy, monkeypatch)
