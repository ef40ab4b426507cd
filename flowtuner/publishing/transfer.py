"""The order of writes that keeps a destination honest: files first, each read back, the manifest last.

The layout is the same everywhere: `<base_path>/<run>/checkpoint-N/...` and the release at `<base_path>/<run>/...`,
each unit with a `manifest.json` of its own. A unit owns the files that its manifest lists and no others, so publishing
the release never touches the checkpoints in the folders beside its files, nor anything that somebody else put there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from flowtuner.durable import FileRecord
from flowtuner.errors import PublishError
from flowtuner.publishing.destination import Progress
from flowtuner.publishing.manifest import MANIFEST_NAME, Manifest, parse_manifest
from flowtuner.publishing.snapshot import Snapshot

CHECKPOINT_NAME = re.compile(r"checkpoint-\d+")


class Store(Protocol):
    """The few things a destination's storage must do; keys are POSIX paths below its base path."""

    def read(self, key: str) -> bytes | None:
        """The bytes of a small object, None if there is none."""

    def write(self, key: str, data: bytes) -> None:
        """Writes a small object atomically."""

    def size(self, key: str) -> int | None:
        """The size of an object, None if there is none."""

    def stage(self, source: Path, key: str, record: FileRecord, on_bytes: Progress) -> None:
        """Uploads a file and reads it back; where the storage can, it becomes visible only by `settle`."""

    def settle(self) -> None:
        """Makes everything staged visible."""

    def delete(self, key: str) -> None:
        """Removes an object that may be missing."""

    def reserve(self, bytes: int) -> None:
        """Raises PublishError when that much cannot fit."""

    def has_content(self, key: str, record: FileRecord) -> bool:
        """Whether an object has the recorded bytes, by reading it or by the storage's own digest."""

    def children(self, prefix: str) -> Iterable[str]:
        """The names directly below a prefix."""


def send(store: Store, snapshot: Snapshot, manifest: Manifest, on_progress: Progress) -> tuple[Manifest, int, int]:
    """Brings a unit to a store; answers with the manifest that stands there now, files sent and bytes sent."""
    manifest_key = f"{manifest.prefix}/{MANIFEST_NAME}"
    remote = parse_manifest(store.read(manifest_key))
    changed = [record for record in manifest.files if not _is_there(store, manifest.prefix, record, remote)]
    if remote and not changed and remote.describes_same(manifest):
        on_progress(manifest.size, manifest.size)
        return remote, 0, 0
    sent = _upload(store, snapshot, manifest, changed, on_progress)
    if changed:
        # While names are switched the old manifest would vouch for a mixture.
        store.delete(manifest_key)
    store.settle()
    store.write(manifest_key, manifest.to_bytes())
    for record in _orphans(remote, manifest):
        store.delete(f"{manifest.prefix}/{record.path}")
    return manifest, len(changed), sent


def find_remote_damage(store: Store, manifest: Manifest, *, deep: bool) -> list[str]:
    """Says what a store lacks of a unit."""
    remote = parse_manifest(store.read(f"{manifest.prefix}/{MANIFEST_NAME}"))
    if remote is None:
        return [f"{manifest.prefix}/{MANIFEST_NAME} is missing"]
    if not remote.describes_same(manifest):
        return [f"{manifest.prefix}/{MANIFEST_NAME} describes other files"]
    damage = []
    for record in manifest.files:
        key = f"{manifest.prefix}/{record.path}"
        size = store.size(key)
        if size is None:
            damage.append(f"{key} is missing")
        elif size != record.size:
            damage.append(f"{key} has {size} bytes instead of {record.size}")
        elif deep and not store.has_content(key, record):
            damage.append(f"{key} has other bytes")
    return damage


def remove_surplus(store: Store, run: str, keep: int, newest: str) -> list[str]:
    """Removes the checkpoints of a run that were published longest ago, beyond `keep`."""
    if keep <= 0:
        return []
    found = []
    for name in store.children(run):
        if CHECKPOINT_NAME.fullmatch(name):
            manifest = parse_manifest(store.read(f"{run}/{name}/{MANIFEST_NAME}"))
            # A folder without our manifest is somebody else's, or an upload under way.
            if manifest is not None and manifest.kind == "checkpoint":
                found.append(manifest)
    found.sort(key=lambda manifest: (manifest.created, manifest.step))
    surplus = [manifest for manifest in found[:-keep] if manifest.name != newest]
    for manifest in surplus:
        _remove(store, manifest)
    return [manifest.name for manifest in surplus]


def _is_there(store: Store, prefix: str, record: FileRecord, remote: Manifest | None) -> bool:
    return remote is not None and record in remote.files and store.size(f"{prefix}/{record.path}") == record.size


def _upload(
    store: Store, snapshot: Snapshot, manifest: Manifest, changed: list[FileRecord], on_progress: Progress
) -> int:
    total = sum(record.size for record in changed)
    store.reserve(total)
    done = 0
    for record in changed:
        source = snapshot.folder / record.path
        if not source.is_file():
            raise PublishError(
                f"{source} vanished before it was published. Run `flowtuner publish` on the folder again."
            )
        store.stage(
            source,
            f"{manifest.prefix}/{record.path}",
            record,
            lambda bytes, _, before=done: on_progress(before + bytes, total),  # type: ignore[misc]
        )
        done += record.size
    return total


def _orphans(remote: Manifest | None, manifest: Manifest) -> list[FileRecord]:
    kept = {record.path for record in manifest.files}
    return [record for record in remote.files if record.path not in kept] if remote else []


def _remove(store: Store, manifest: Manifest) -> None:
    # The manifest goes first: from then on nobody takes the rest for a whole checkpoint.
    store.delete(f"{manifest.prefix}/{MANIFEST_NAME}")
    for record in manifest.files:
        store.delete(f"{manifest.prefix}/{record.path}")
