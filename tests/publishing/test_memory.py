"""Publishing again knows where to, unless that would have meant to keep credentials."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowtuner.errors import ConfigError
from flowtuner.publishing.memory import recall_entries, remember_entries


def test_what_is_remembered_is_recalled(tmp_path: Path) -> None:
    entries = [{"provider": "folder", "path": "/x"}, {"provider": "s3", "block": "prod"}]
    remember_entries(tmp_path, entries)
    assert recall_entries(tmp_path) == entries


def test_credentials_are_not_kept(tmp_path: Path) -> None:
    remember_entries(tmp_path, [{"provider": "folder", "path": "/x"}, {"provider": "s3", "secret_key": "hunter2"}])
    assert "hunter2" not in (tmp_path / "logs/destinations.json").read_text()
    with pytest.raises(ConfigError, match="credentials"):
        recall_entries(tmp_path)


def test_nothing_to_recall_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--to FOLDER"):
        recall_entries(tmp_path)
