"""The server of a home: one for all, behind a password, gone when the last user leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowtuner.jobs.server import ServerDown, prefect_server

ROOT = Path(__file__).parents[2]
USER = """
import json, os, sys
from pathlib import Path
from flowtuner.jobs.server import prefect_server
with prefect_server(Path(sys.argv[1])) as address:
    assert "prefect" not in sys.modules
    record = json.loads((Path(sys.argv[1]) / "server/server.json").read_text())
    print(json.dumps({"url": address.api_url, "env": os.environ["PREFECT_API_URL"], "pid": record["pid"]}), flush=True)
    sys.stdin.readline()
print(json.dumps({"left": os.environ.get("PREFECT_API_URL")}), flush=True)
"""


class User:
    """Another process that uses the server of a home."""

    def __init__(self, home: Path) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        environment |= {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(home / "none")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended with exit code {self.process.wait()} before it had a server"
        return dict(json.loads(line))

    def leave(self) -> dict[str, Any]:
        answer, _ = self.process.communicate(b"\n", timeout=60)
        return dict(json.loads(answer))


@pytest.fixture
def users(tmp_path: Path) -> Iterator[list[User]]:
    present = [User(tmp_path) for _ in range(3)]
    yield present
    for user in present:
        user.process.kill()
        user.process.communicate()


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").exists() and b"prefect" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.slow
def test_runs_that_start_together_share_one_server_and_the_last_ends_it(users: list[User]) -> None:
    answers = [user.read() for user in users]
    assert len({(answer["url"], answer["pid"]) for answer in answers}) == 1
    url, pid = answers[0]["url"], answers[0]["pid"]
    assert answers[0]["env"] == url
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/flows/count", data=b"{}")
    users[0].process.kill()  # a run that dies leaves nothing locked
    users[0].process.communicate()
    assert users[1].leave() == {"left": None}
    assert is_alive(pid)
    users[2].leave()
    assert not is_alive(pid)


def test_a_configured_server_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example/api")
    with prefect_server(tmp_path) as address:
        assert (address.api_url, address.ui_url) == ("https://prefect.example/api", "https://prefect.example")
        assert not address.is_ours
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ServerDown, match=r"exit code 1.*server\.log"), prefect_server(tmp_path):
        pass
