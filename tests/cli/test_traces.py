"""Credentials of every provider, given to the commands and followed everywhere they might have gone."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3.session
import httpx
import psutil
import pytest

from flowtuner.jobs.server import prefect_server
from flowtuner.publishing.registry import known_destinations
from tests.fakes.certificate import write_certificate
from tests.fakes.dropbox.account import Account
from tests.fakes.dropbox.server import FakeDropbox
from tests.fakes.hub.accounts import ALICE
from tests.fakes.hub.server import Hub, serve
from tests.fakes.s3.servers import REGION, moto

COMMAND = [sys.executable, "-m", "flowtuner.cli"]
TIMEOUT_S = 500
WORD = "canary"
# However a credential is wrapped in base64, one of the three ways to cut it into groups of three bytes shows.
WRAPPED = [base64.b64encode(bytes(skip) + WORD.encode())[-8:-2].decode() for skip in range(3)]
NEEDLES = [word.lower().encode() for word in (WORD, "Y2FuYXJ5", "jYW5hcn", "NhbmFye", "2FuYXJ5", "hbmFye")]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass
class Services:
    """One service of each kind on this machine, and what is given to the commands for it."""

    s3_url: str
    s3: Any
    dropbox: FakeDropbox
    hub: Hub
    share: Path
    environ: dict[str, str] = field(default_factory=dict)

    def entries(self) -> list[dict[str, Any]]:
        """An entry for every provider, with a canary in every field that holds a credential."""
        s3 = {"bucket": "cli", "endpoint_url": self.s3_url, "region": REGION}
        return [
            {"provider": "folder", "path": str(self.share)},
            {
                "provider": "s3-compatible",
                **s3,
                "aws_access_key_id": "{env:OUR_ID}",
                "secret_key": "canary-secret-in-the-file",
                "session_token": "canary-session",
                "request_headers": {"X-Gateway": "canary-header"},
            },
            {"provider": "b2", **s3, "base_path": "b2", "access_key": "AKIACANARYB2", "secret_key": "canary-b2"},
            {
                "provider": "dropbox",
                "name": "renewing",
                "refresh_token": "canary-refresh",
                "app_key": "canary-app-key",
                "app_secret": "canary-app-secret",
            },
            {"provider": "dropbox", "name": "failing", "base_path": "other", "token": "canary-token"},
            {"provider": "huggingface", "repo_id": "alice/model", "token": ALICE, "endpoint": self.hub.url},
        ]

    def wrong_entries(self) -> list[dict[str, Any]]:
        """Entries that every provider refuses, and mistakes in which a credential stands where none belongs."""
        s3 = {"bucket": "cli", "endpoint_url": "http://127.0.0.1:9", "region": REGION}
        return [
            {"provider": "s3", **s3, "access_key": "AKIACANARY", "secret_key": "canary-secret"},
            {"provider": "dropbox", "name": "unknown", "token": "canary-unknown"},
            {"provider": "dropbox", "name": "r", "refresh_token": "canary-r", "app_key": "canary-k"},
            {"provider": "huggingface", "repo_id": "alice/m", "token": "hf_canaryNobody", "endpoint": self.hub.url},
        ]

    def mistakes(self) -> list[dict[str, Any]]:
        """Entries in which a credential stands where none belongs."""
        return [
            {"provider": "s3", "bucket": "cli", "access_key": ["AKIACANARY"], "secret_key": {"x": "canary"}},
            {"provider": "s3", "bucket": "cli", "secretkey": "canary-misspelt", "request_headers": "canary: header"},
            {"provider": "s3", "bucket": "cli", "endpoint_url": "https://AKIACANARY:canary@s3.example"},
            {"provider": "dropbox", "tokn": "canary-misspelt", "token": "canary with spaces"},
            {"provider": "dropbox", "refresh_token": "canary-refresh"},
            {"provider": "huggingface", "repo_id": "alice/m", "tokens": "hf_canary", "token": ["hf_canary"]},
        ]

    def contents(self) -> Iterator[bytes]:
        """Everything that arrived anywhere, with what is said about it."""
        for item in self.s3.list_objects_v2(Bucket="cli").get("Contents", ()):
            reply = self.s3.get_object(Bucket="cli", Key=item["Key"])
            yield item["Key"].encode() + reply["Body"].read() + repr(reply["Metadata"]).encode()
        for file in self.dropbox.account.files.values():
            yield file.path.encode() + file.data
        for repo in self.hub.state.repos.values():
            yield from (title.encode() for title in self.hub.titles(repo.id))
            yield from self.hub.files(repo.id).values()
        yield from (path.read_bytes() for path in self.share.rglob("*") if path.is_file())


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    (tmp_path / "share").mkdir()
    pem = write_certificate(tmp_path / "certificate.pem")
    account = Account()
    account.refresh_tokens["canary-refresh"] = ("canary-app-key", "canary-app-secret")
    account.grant("canary-token")
    with moto() as s3_url, FakeDropbox(account, pem) as dropbox, serve(tmp_path / "hub") as hub:
        client = boto3.session.Session("a", "b", region_name=REGION).client("s3", endpoint_url=s3_url)
        client.create_bucket(Bucket="cli")
        place = f"127.0.0.1:{dropbox.port}"
        environ = {"OUR_ID": "AKIACANARY000000ENV", "REQUESTS_CA_BUNDLE": str(pem), "HF_HUB_OFFLINE": "0"}
        environ |= {"DROPBOX_API_HOST": place, "DROPBOX_API_CONTENT_HOST": place, "HF_HUB_DISABLE_XET": "1"}
        for name in ("HF_TOKEN", "CURL_CA_BUNDLE"):
            monkeypatch.delenv(name, raising=False)
        yield Services(s3_url, client, dropbox, hub, tmp_path / "share", environ)
        client.close()


def run(environ: dict[str, str], home: Path, *arguments: object, codes: tuple[int, ...] = (0,), text: str = "") -> str:
    """Runs a command, and looks meanwhile at the arguments of all processes that belong to it."""
    words = [*COMMAND, *map(str, arguments)]
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | environ,
    ) as process:
        said, seen = "", set()
        while True:
            seen |= arguments_of_processes(home)
            try:
                said, _ = process.communicate(text or None, timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                text = ""
    assert process.returncode in codes, said
    assert [argument for argument in seen if has_canary(argument.encode())] == []
    assert len(seen) > 1
    assert not has_canary(said.encode()), said
    return said


def arguments_of_processes(home: Path) -> set[str]:
    """What everybody on this machine can see of the processes that have this home."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("FLOWTUNER_HOME") == str(home):
                found |= set(process.cmdline())
    return found


def has_canary(data: bytes) -> bool:
    return any(needle in data.lower() for needle in NEEDLES)


def files_with_canaries(*folders: Path) -> list[str]:
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert paths
    return [str(path) for path in paths if has_canary(path.read_bytes())]


def everything_prefect_tells(home: Path) -> Iterator[tuple[str, bytes]]:
    """All that a client of Prefect's API may read without asking for secrets."""
    kinds = (
        "flow_runs", "task_runs", "flows", "deployments", "block_documents", "block_types", "block_schemas", "logs",
        "artifacts", "variables", "work_pools", "events", "task_run_states", "flow_run_states",
    )  # fmt: skip
    with prefect_server(home, start_timeout_s=300) as server:
        user, _, password = (server.auth or "").partition(":")
        with httpx.Client(base_url=server.api_url, auth=(user, password), timeout=60, trust_env=False) as client:
            for kind in kinds[:-2]:
                reply = client.post(f"/{kind}/filter", json={})
                assert reply.status_code == 200, f"{kind}: {reply.text}"
                yield kind, reply.content
            for each in client.post("/flow_runs/filter", json={}).json():
                yield "states", client.get("/flow_run_states/", params={"flow_run_id": each["id"]}).content
            for each in client.post("/task_runs/filter", json={}).json():
                yield "states", client.get("/task_run_states/", params={"task_run_id": each["id"]}).content


def revoke_after_the_probe(account: Account) -> None:
    def revoke(route: str) -> None:
        if route == "files/upload_session/start_batch":
            account.tokens.pop("canary-token", None)

    account.hooks.append(revoke)


def test_every_provider_is_tried(services: Services) -> None:
    tried = {str(entry["provider"]) for entry in services.entries()}
    for name, kind in known_destinations().items():
        assert tried & {name, *kind.aliases}, f"{name} has no entry here"
        given = {kind.spellings.get(key, key) for entry in services.entries() for key in entry}
        assert kind.secret_keys <= given, f"not every credential of {name} is given"


def test_no_credential_is_found_where_a_run_leaves_its_traces(
    config_file: Path, tmp_path: Path, home: Path, services: Services
) -> None:
    environ = services.environ
    options = json.loads(config_file.read_text()) | {"publishing_config": services.entries()}
    config_file.write_text(json.dumps(options))
    revoke_after_the_probe(services.dropbox.account)
    said = run(environ, home, "config", "show", "--config", config_file, "--origin")
    said += run(environ, home, "check", "--config", config_file)
    said = run(environ, home, "train", "--config", config_file, codes=(1,))
    assert "failing" in said  # the token that was revoked on the way, told without it
    assert "authorize the app again" in said
    arrived = [services.s3.head_object(Bucket="cli", Key=f"{place}output/manifest.json") for place in ("", "b2/")]
    assert len(arrived) == 2
    assert "/output/manifest.json" in services.dropbox.account.files
    assert "README.md" in services.hub.files("alice/model")
    assert (services.share / "output/manifest.json").is_file()

    # The folder remembers the blocks' names, which are all that publishing again needs.
    run(environ, home, "publish", tmp_path / "output", "--json", codes=(1,))
    services.dropbox.account.grant("canary-token")
    services.dropbox.account.hooks.clear()
    assert '"state": "verified"' in run(environ, home, "publish", tmp_path / "output", "--json")
    entry = json.dumps(services.entries()[1] | {"base_path": "by-hand"})
    run(environ, home, "destination", "add", "by-hand", "-", text=entry)
    run(environ, home, "destination", "list", "--config", config_file, "--json")
    run(environ, home, "publish", tmp_path / "output", "--to", "by-hand")

    for number, wrong in enumerate((services.wrong_entries(), services.mistakes())):
        path = tmp_path / f"wrong-{number}.json"
        path.write_text(json.dumps(options | {"publishing_config": wrong}))
        for command in ("check", "train"):
            assert "error" in run(environ, home, command, "--config", path, codes=(2, 3))
        run(environ, home, "config", "show", "--config", path, codes=(0, 2))
    for entry in services.wrong_entries() + services.mistakes():
        run(environ, home, "destination", "add", "refused", "-", text=json.dumps(entry), codes=(1, 2))

    assert (home / "server").is_dir()
    assert files_with_canaries(home, tmp_path / "output", tmp_path / "prefect") == []
    assert [content[:200] for content in services.contents() if has_canary(content)] == []
    assert [kind for kind, told in everything_prefect_tells(home) if has_canary(told)] == []
