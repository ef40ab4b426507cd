"""Destinations are found by entry points, and every fault of every entry is told at once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flowtuner.errors import ConfigError
from flowtuner.publishing.registry import check_entries, known_destinations, open_destinations


def test_the_folder_destination_is_built_in() -> None:
    assert known_destinations()["folder"].provider == "folder"


def test_provider_type_aliases_and_case_are_equal(tmp_path: Path) -> None:
    entries = [{"provider": " Folder ", "path": str(tmp_path)}, {"type": "directory", "path": str(tmp_path / "b")}]
    assert [destination.provider for destination in open_destinations(entries)] == ["folder", "folder"]


def test_all_faults_of_all_entries_come_together(tmp_path: Path) -> None:
    entries = [
        {"provider": "foldr", "path": "x"},
        {"path": "x"},
        {"provider": "folder", "path": str(tmp_path), "base_pth": "x"},
        {"provider": "folder"},
        {"provider": "folder", "path": str(tmp_path), "base_path": "../up", "required": "perhaps"},
    ]
    with pytest.raises(ConfigError) as caught:
        open_destinations(entries)
    text = str(caught.value)
    assert "did you mean 'folder'?" in text
    assert "names no destination" in text
    assert "did you mean 'base_path'?" in text
    assert "path: is required" in text
    assert "would leave the destination's path" in text
    assert "publishing_config[4]" in text
    assert len(caught.value.faults) == 6
    assert check_entries(entries) == list(caught.value.faults)


def test_two_destinations_need_two_names(tmp_path: Path) -> None:
    entry = {"provider": "folder", "path": str(tmp_path)}
    with pytest.raises(ConfigError, match="same name"):
        open_destinations([entry, entry])


def test_other_packages_can_add_destinations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "attic.py").write_text(
        "from blocks.folder import FolderDestination\n"
        "class Attic(FolderDestination):\n"
        "    _block_type_slug = 'attic'\n"
        "    provider = 'attic'\n"
    )
    info = tmp_path / "attic-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: attic\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flowtuner.destinations]\nattic = attic:Attic\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    destination = open_destinations([{"provider": "attic", "path": str(tmp_path)}])[0]
    assert destination.provider == "attic"
    sys.modules.pop("attic")
