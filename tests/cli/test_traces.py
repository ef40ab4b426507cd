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

from flowtuner.jobs.server import ServerAddress, prefect_server
from flowtuner.publishing.registry import known_destinations
from tests.fakes.azure.blobs import ACCOUNT, BlobServer, blob_server
from tests.fakes.azure.servers import connection_string
from tests.fakes.certificate import write_certificate
from tests.fakes.dropbox.account import Account
from tests.fakes.dropbox.server import FakeDropbox
from tests.fakes.hub.accounts import ALICE
from tests.fakes.hub.server import Hub, serve
from tests.fakes.s3.servers import REGION, moto

COMMAND = [sys.executable, "-m", "flowtuner.cli"]
AZURE_KEY = base64.b64encode(b"canary key of the account").decode()
WRONG_AZURE_KEY = base64.b64encode(b"canary key of nobody").decode()
WORD = "canary"
# Wrapped in base64 it is cut into groups of three bytes, in one of three ways.
WRAPPED = [base64.b64encode(b"-" * before + WORD.encode())[4 * (before > 0) : 8].decode() for before in range(3)]
NEEDLES = [word.lower().encode() for word in (WORD, *WRAPPED)]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings(
        "ignore:subprocess .* is still running:ResourceWarning"
    ),  # the server outlives its starter
]


@dataclass
class Services:
    """One service of each kind on this machine, and what is given to the commands for it."""

    s3_url: str
    s3: Any
    dropbox: FakeDropbox
    hub: Hub
    azure: BlobServer
    share: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def account(self) -> dict[str, str]:
        """Where the Azure account is."""
        return {"account_url": f"http://127.0.0.1:{self.azure.server_port}/{ACCOUNT}"}

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
            {
                "provider": "azure",
                "container": "cli",
                "connection_string": connection_string(self.azure.server_port, AZURE_KEY),
            },
            {
                "provider": "azure_blob",
                "container": "cli",
                "base_path": "key",
                **self.account,
                "account_key": AZURE_KEY,
            },
        ]

    def wrong_entries(self) -> list[dict[str, Any]]:
        """Entries that every provider refuses, and mistakes in which a credential stands where none belongs."""
        s3 = {"bucket": "cli", "endpoint_url": "http://127.0.0.1:9", "region": REGION}
        return [
            {"provider": "s3", **s3, "access_key": "AKIACANARY", "secret_key": "canary-secret"},
            {"provider": "dropbox", "name": "unknown", "token": "canary-unknown"},
            {"provider": "dropbox", "name": "r", "refresh_token": "canary-r", "app_key": "canary-k"},
            {"provider": "huggingface", "repo_id": "alice/m", "token": "hf_canaryNobody", "endpoint": self.hub.url},
            {"provider": "azure", "container": "cli", **self.account, "account_key": WRONG_AZURE_KEY},
            {"provider": "azure", "name": "sas", "container": "cli", **self.account, "sas_token": "sv=2&sig=canary%2B"},
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
            {"provider": "azure", "container": "cli", "connection_string": "AccountKey=canary"},
            {"provider": "azure", "container": "cli", "account_url": "https://acc1.blob.core.windows.net/?sig=canary"},
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
        for name, blob in self.azure.containers["cli"].items():
            yield name.encode() + (blob.data or b"") + repr(blob.headers).encode()
        yield from (path.read_bytes() for path in self.share.rglob("*") if path.is_file())


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    (tmp_path / "share").mkdir()
    pem = write_certificate(tmp_path / "certificate.pem")
    account = Account()
    account.refresh_tokens["canary-refresh"] = ("canary-app-key", "canary-app-secret")
    account.grant("canary-token")
    with (
        moto() as s3_url,
        FakeDropbox(account, pem) as dropbox,
        serve(tmp_path / "hub") as hub,
        blob_server(AZURE_KEY) as azure,
    ):
        azure.containers["cli"] = {}
        client = boto3.session.Session("a", "b", region_name=REGION).client("s3", endpoint_url=s3_url)
        client.create_bucket(Bucket="cli")
        place = f"127.0.0.1:{dropbox.port}"
        environ = {"OUR_ID": "AKIACANARY000000ENV", "REQUESTS_CA_BUNDLE": str(pem), "HF_HUB_OFFLINE": "0"}
        environ |= {"DROPBOX_API_HOST": place, "DROPBOX_API_CONTENT_HOST": place, "HF_HUB_DISABLE_XET": "1"}
        for name in ("HF_TOKEN", "CURL_CA_BUNDLE"):
            monkeypatch.delenv(name, raising=False)
        yield Services(s3_url, client, dropbox, hub, azure, tmp_path / "share", environ)
        client.close()


@pytest.fixture
def server(home: Path) -> Iterator[ServerAddress]:
    """One Prefect server for all commands of a test."""
    with prefect_server(home, start_timeout_s=300) as address:
        yield address


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
    assert len(seen) > 1  # the process itself was seen
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


def everything_prefect_tells(server: ServerAddress) -> Iterator[tuple[str, bytes]]:
    """All that a client of Prefect's API may read without asking for secrets."""
    kinds = (
        "flow_runs", "task_runs", "flows", "deployments", "block_documents", "block_types", "block_schemas", "logs",
        "artifacts", "variables", "work_pools", "events",
    )  # fmt: skip
    user, _, password = (server.auth or "").partition(":")
    with httpx.Client(base_url=server.api_url, auth=(user, password), timeout=60, trust_env=False) as client:
        for kind in kinds:
            reply = client.post(f"/{kind}/filter", json={})
            assert reply.status_code == 200, f"{kind}: {reply.text}"
            yield kind, reply.content
        for kind in ("flow_run", "task_run"):
            for each in client.post(f"/{kind}s/filter", json={}).json():
                yield kind, client.get(f"/{kind}_states/", params={f"{kind}_id": each["id"]}).content


def revoke_after_the_probe(account: Account) -> None:
    def revoke(route: str) -> None:
        if route == "files/upload_session/start_batch":
            account.tokens.pop("canary-token", None)

    account.hooks.append(revoke)


def test_every_provider_is_tried(services: Services) -> None:
    entries = services.entries() + services.wrong_entries()
    tried = {str(entry["provider"]) for entry in services.entries()}
    for name, kind in known_destinations().items():
        assert tried & {name, *kind.aliases}, f"{name} has no entry here"
        given = {kind.spellings.get(key, key) for entry in entries for key in entry}
        assert kind.secret_keys <= given, f"not every credential of {name} is given"


def test_no_credential_is_found_where_a_run_leaves_its_traces(
    config_file: Path, tmp_path: Path, home: Path, services: Services, server: ServerAddress
) -> None:
    environ = services.environ
    options = json.loads(config_file.read_text()) | {"publishing_config": services.entries()}
    config_file.write_text(json.dumps(options))
    revoke_after_the_probe(services.dropbox.account)
    run(environ, home, "config", "show", "--config", config_file, "--origin")
    said = run(environ, home, "train", "--config", config_file, codes=(1,))
    assert "failing" in said  # the token that was revoked on the way, told without it
    assert "authorize the app again" in said
    listed = [item["Key"] for item in services.s3.list_objects_v2(Bucket="cli")["Contents"]]
    assert {"output/manifest.json", "b2/output/manifest.json"} <= set(listed)
    assert "/output/manifest.json" in services.dropbox.account.files
    assert {"output/manifest.json", "key/output/manifest.json"} <= set(services.azure.containers["cli"])
    assert "model_index.json" in services.hub.files("alice/model")
    assert (services.share / "output/manifest.json").is_file()

    # The folder remembers the blocks' names, which are all that publishing again needs.
    services.dropbox.account.grant("canary-token")
    services.dropbox.account.hooks.clear()
    assert '"state": "verified"' in run(environ, home, "publish", tmp_path / "output", "--json")
    assert_no_traces(services, home, server, tmp_path / "output")


def test_no_credential_is_found_where_something_was_refused(
    config_file: Path, tmp_path: Path, home: Path, services: Services, server: ServerAddress
) -> None:
    environ = services.environ
    options = json.loads(config_file.read_text())
    for number, wrong in enumerate((services.wrong_entries(), services.mistakes())):
        path = tmp_path / f"wrong-{number}.json"
        path.write_text(json.dumps(options | {"publishing_config": wrong}))
        assert "publishing" in run(environ, home, "check", "--config", path, codes=(2,))
        run(environ, home, "config", "show", "--config", path, codes=(0, 2))
    # Kept all the same, a destination that refuses is found out by the run itself.
    model = tmp_path / "model"
    model.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (model / name).write_text("{}")
    places = []
    for number, entry in enumerate(services.wrong_entries()):
        run(environ, home, "destination", "add", "--untested", f"wrong-{number}", "-", text=json.dumps(entry))
        places += ["--to", f"wrong-{number}"]
    run(environ, home, "destination", "list", "--json")
    run(environ, home, "publish", model, *places, codes=(1, 2))
    assert_no_traces(services, home, server, model)


def assert_no_traces(services: Services, home: Path, server: ServerAddress, folder: Path) -> None:
    assert (home / "server").is_dir()
    assert files_with_canaries(home, folder) == []
    assert [content[:200] for content in services.contents() if has_canary(content)] == []
    assert [kind for kind, told in everything_prefect_tells(server) if has_canary(told)] == []
