"""Which Prefect API is configured, without asking Prefect."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowtuner.jobs.server import _read_or_create_auth, default_home
from flowtuner.jobs.settings import find_api_url


def test_nothing_is_configured(tmp_path: Path) -> None:
    assert find_api_url({"PREFECT_HOME": str(tmp_path)}, tmp_path) is None


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("prefect.toml", '[api]\nurl = "http://x/api"'),
        ("pyproject.toml", '[tool.prefect.api]\nurl = "http://x/api"'),
        ("profiles.toml", 'active = "far"\n[profiles.far]\nPREFECT_API_URL = "http://x/api"'),
    ],
)
def test_every_place_that_prefect_reads_counts(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).write_text(content)
    assert find_api_url({"PREFECT_HOME": str(tmp_path)}, tmp_path) == "http://x/api"
    environ = {"PREFECT_HOME": str(tmp_path), "PREFECT_API_URL": "http://y/api"}
    assert find_api_url(environ, tmp_path) == "http://y/api"


def test_another_profile_can_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "profiles.toml").write_text('active = "far"\n[profiles.far]\nPREFECT_API_URL = "u"\n[profiles.near]\n')
    assert find_api_url({"PREFECT_HOME": str(tmp_path), "PREFECT_PROFILE": "near"}, tmp_path) is None


def test_broken_settings_are_for_prefect_to_complain_about(tmp_path: Path) -> None:
    (tmp_path / "prefect.toml").write_text("[api\n")
    assert find_api_url({"PREFECT_HOME": str(tmp_path)}, tmp_path) is None


def test_the_password_is_made_once_and_is_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "auth"
    first = _read_or_create_auth(path)
    assert first.startswith("flowtuner:")
    assert path.stat().st_mode & 0o777 == 0o600
    assert _read_or_create_auth(path) == first


def test_the_home_can_be_chosen() -> None:
    assert default_home({"FLOWTUNER_HOME": "/x"}) == Path("/x")
    assert default_home({}) == Path("~/.flowtuner").expanduser()
