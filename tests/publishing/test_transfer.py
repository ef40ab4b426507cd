"""Replacing a unit: whoever goes on after an interruption leaves neither a mixture that looks whole nor old files."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.folder import FolderDestination, FolderStore
from flowtuner.publishing.manifest import MANIFEST_NAME
from flowtuner.publishing.snapshot import Snapshot, freeze, release_unit


def take_release(folder: Path, files: dict[str, str]) -> Snapshot:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return freeze(release_unit(folder, "r1", 9, {})).seal()


class KilledError(Exception):
    """Stands for the end of the process."""


OPERATIONS = ("write", "delete", "settle")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("nth", range(1, 5))
def test_old_files_go_however_the_replacement_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, nth: int
) -> None:
    output_dir = tmp_path / "out" / "run"
    (tmp_path / "share").mkdir()
    destination = FolderDestination(path=tmp_path / "share")
    destination.publish(take_release(output_dir, {"pipeline/a": "a", "pipeline/b": "b", "README.md": "card"}), print)
    (output_dir / "pipeline/a").unlink()
    new = take_release(output_dir, {"pipeline/c": "c", "README.md": "new card"})
    real, left = getattr(FolderStore, operation), [nth]

    def die(self: FolderStore, *arguments: object, **named: object) -> object:
        left[0] -= 1
        if not left[0]:
            raise KilledError
        return real(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, operation, die)
        try:
            destination.publish(new, print)
        except KilledError:
            assert [damage for unit in destination.units("run") for damage in destination.verify(unit)] == []
    destination.publish(new, print)
    found = {path.relative_to(tmp_path / "share/run").as_posix() for path in (tmp_path / "share/run").rglob("*")}
    assert found == {"pipeline", "pipeline/b", "pipeline/c", "README.md", MANIFEST_NAME}
    assert destination.publish(new, print).sent_files == 0
