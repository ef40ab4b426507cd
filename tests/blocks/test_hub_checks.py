"""The checks before a run trusts the Hub with its results: every broken set-up has a code of its own and a remedy."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blocks.huggingface import HuggingFaceDestination
from flowtuner.errors import DestinationDown, PublishError
from flowtuner.publishing.checklist import Check, failures
from tests.blocks.conftest import RUN, ignore, take_checkpoint
from tests.blocks.test_huggingface import REPO
from tests.fakes.hub.accounts import ALICE, ALICE_FINE, ALICE_READS
from tests.fakes.hub.faults import Fault
from tests.fakes.hub.server import Hub

SIGN_IN = 'secrets={"HF_TOKEN": "$HF_TOKEN"}'
Setting = Callable[[Hub], None]


def public(hub: Hub) -> None:
    hub.state.create(REPO, "alice", is_private=False)


def filled(hub: Hub) -> None:
    repo = hub.state.create(REPO, "alice", is_private=True)
    repo.add({"model.bin": hub.state.blobs.small(b"x")}, "theirs", "", "alice", "main")


def bobs(hub: Hub) -> None:
    hub.state.create("bob/secret", "bob", is_private=True)


def limping(hub: Hub) -> None:
    hub.state.traffic.faults = [Fault("whoami", 503)]


def hobbled(hub: Hub) -> None:
    hub.state.traffic.faults = [Fault("POST /api/repos/create", 403)]


def limited(hub: Hub) -> None:
    hub.state.traffic.faults = [Fault("auth-check/write", 429, headers={"Retry-After": "1"})]


def exhausted(hub: Hub) -> None:
    hub.state.traffic.faults = [Fault("POST .*/commit/preflight", 402)]


def hampered(hub: Hub) -> None:
    hub.state.traffic.faults = [Fault("PUT /_lfs/", 503), Fault("DELETE .*/branch/", 500)]


def untouched(hub: Hub) -> None:
    """A Hub that is well."""


BROKEN: list[tuple[str, Setting, dict[str, Any], str | None, str]] = [
    ("no token", untouched, {"token": ""}, "token_missing", SIGN_IN),
    ("a placeholder", untouched, {"token": "$HF_TOKEN"}, "token_missing", SIGN_IN),
    ("a token with a space", untouched, {"token": "hf_canary x"}, "token_missing", SIGN_IN),
    ("a token that is not known", untouched, {"token": "hf_canaryUnknown"}, "token_invalid", "hf auth whoami"),
    ("a token that reads", public, {"token": ALICE_READS}, "write_forbidden", "role is write"),
    ("a token for another place", untouched, {"token": ALICE_FINE}, "write_forbidden", "repo.write"),
    ("somebody else's namespace", untouched, {"repo_id": "bob/x"}, "namespace_foreign", "alice, acme"),
    ("an organisation one may only read", untouched, {"repo_id": "readers/x"}, "namespace_foreign", "role write"),
    ("a private repository of others", bobs, {"repo_id": "bob/secret"}, "namespace_foreign", "alice"),
    ("a repository with other things in it", filled, {}, "name_conflict", "allow_existing"),
    ("a public one that is to be private", public, {"private": True}, "visibility_differs", "settings"),
    ("a name that cannot be made", hobbled, {}, "create_forbidden", "by hand"),
    ("an account without room", exhausted, {}, "quota", "Free space"),
    ("a storage that stumbles", hampered, {}, None, ""),
    ("a Hub that limps", limping, {}, None, ""),
    ("a Hub that asks for patience", limited, {}, None, ""),
    ("an organisation", untouched, {"repo_id": "acme/fox-lora"}, None, ""),
    ("a fine-grained token in its place", untouched, {"token": ALICE_FINE, "repo_id": "acme/x-lora"}, None, ""),
    ("one's own name without an owner", untouched, {"repo_id": "", "own_repo": "fox-lora"}, None, ""),
    ("other things that may be written over", filled, {"allow_existing": True}, None, ""),
]


def look(hub: Hub, **settings: Any) -> list[Check]:
    return HuggingFaceDestination(**{"repo_id": REPO, "token": ALICE, **settings}).inspect()


@pytest.mark.parametrize(
    ("setting", "settings", "code", "remedy"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
def test_every_broken_set_up_has_its_own_code_and_a_remedy(
    hub: Hub,
    setting: Setting,
    settings: dict[str, Any],
    code: str | None,
    remedy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    setting(hub)
    started = time.monotonic()
    checks = look(hub, **settings)
    assert time.monotonic() - started < 5 * 4, "5 s, four times that on a machine that is busy"
    failed = failures(checks)
    assert [check.code for check in failed] == ([code] if code else [])
    assert remedy in " ".join(map(str, failed))
    assert "canary" not in " ".join(map(str, checks))
    if code is None:
        assert {"token", "token_valid", "namespace", "write", "storage"} <= {check.code for check in checks}


def test_a_hub_that_is_down_is_said_to_be(hub: Hub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    destination = HuggingFaceDestination(repo_id=REPO, endpoint=f"http://127.0.0.1:{port}")
    with pytest.raises(DestinationDown, match="hub_unreachable"):
        destination.probe()


def test_a_missing_repository_is_made_private_unless_it_is_to_be_public(hub: Hub) -> None:
    assert "created" in [check.code for check in look(hub)]
    assert hub.state.repos[REPO].is_private
    look(hub, repo_id="alice/shown-lora", private=False)
    assert not hub.state.repos["alice/shown-lora"].is_private


def test_the_repository_of_another_run_is_no_place_for_this_one(hub: Hub, tmp_path: Path) -> None:
    destination = HuggingFaceDestination(repo_id=REPO)
    destination.publish(take_checkpoint(tmp_path, 20), ignore)
    destination.probe(tmp_path / "out" / RUN)
    with pytest.raises(PublishError, match=r"name_conflict.*'run 1'"):
        destination.probe(tmp_path / "out" / "another")
    HuggingFaceDestination(repo_id=REPO, allow_existing=True).probe(tmp_path / "out" / "another")


def test_names_that_will_be_regretted_are_cautioned(hub: Hub) -> None:
    assert "name_doubtful" in [check.code for check in look(hub, repo_id="alice/model1")]
    [caution] = HuggingFaceDestination(repo_id="alice/MyFoxes").cautions()
    assert "upper case" in caution
    assert HuggingFaceDestination(repo_id=REPO).cautions() == []


def test_a_probe_stores_a_large_file_aside_and_leaves_nothing_behind(hub: Hub) -> None:
    look(hub)
    repo = hub.state.repos[REPO]
    assert hub.state.traffic.count(r"PUT /_lfs/\w+$") == 1
    assert set(repo.branches) == {"main"}
    assert hub.titles(REPO) == ["initial commit"]
    hub.state.traffic.faults = [Fault("DELETE .*/branch/", 500)]  # as if it had been killed
    look(hub)
    assert set(repo.branches) > {"main"}
    assert not failures(look(hub))
    assert set(repo.branches) == {"main"}
