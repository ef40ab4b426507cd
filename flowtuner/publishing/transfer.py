"""The order of writes that keeps a destination honest: files first, each read back, the manifest last.

The layout is the same everywhere: `<base_path>/<run>/checkpoint-N/...` and the release at `<base_path>/<run>/...`,
each unit with a `manifest.json` of its own. A unit owns the files that its manifest lists and no others, so publishing
the release never touches the checkpoints in the folders beside its files, nor anything that somebody else put there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, Self

from flowtuner.durable import FileRecord
from flowtuner.errors import PublishError
from flowtuner.publishing.destination import Progress
from flowtuner.publishing.manifest import CHECKPOINT_NAME, MANIFEST_NAME, Manifest, parse_manifest
from flowtuner.publishing.snapshot import Snapshot

FORMER_NAME = ".former-manifest.json"  # what stood there before, while it is being replaced
ABANDONED_S = 3 * 86400.0  # a stopped run that is started again within this time goes on inside its files


class Store(Protocol):
    """The few things a destination's storage must do; keys are POSIX paths below its base path."""

    def read(self, key: str) -> bytes | None:
        """The bytes of a small object, None if there is none."""

    def __enter__(self) -> Self:
        """Begins one piece of work."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Ends it; what is worth going on with after this error stays."""

    def write(self, key: str, data: bytes, *, is_new: bool = False) -> None:
        """Writes a small object atomically; a new one must not be there yet, where the storage can tell."""

    def sizes(self, prefix: str, span: tuple[str, str] | None = None) -> Mapping[str, int]:
        """The sizes of all objects below a prefix, by their keys; those before or behind the span may be left out."""

    def stage(self, source: Path, key: str, record: FileRecord, on_bytes: Progress) -> None:
        """Uploads a file, or takes it up to be uploaded by `settle`; it is not visible yet."""

    def settle(self) -> None:
        """Makes everything staged visible, and proves that it arrived with the recorded bytes."""

    def delete(self, *keys: str) -> None:
        """Removes objects that may be missing."""

    def drop_unfinished(self, prefix: str, older_than_s: float = 0) -> None:
        """Removes what uploads below a prefix left behind that never came to their end."""

    def reserve(self, bytes: int) -> None:
        """Raises PublishError when that much cannot fit."""

    def has_content(self, key: str, record: FileRecord) -> bool:
        """Whether an object has the recorded bytes, by reading it or by the storage's own digest."""

    def children(self, prefix: str) -> Iterable[str]:
        """The names directly below a prefix."""

    def chunks(self, key: str, offset: int) -> Iterator[bytes]:
        """The bytes of an object from an offset to its end; several threads read at once."""


def send(
    store: Store,
    snapshot: Snapshot,
    manifest: Manifest,
    on_progress: Progress,
    sources: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Manifest, int, int]:
    """Brings a unit to a store; answers with the manifest that stands there now, files sent and bytes sent.

    `sources` says which of the snapshot's files are to stand there under another path.
    """
    manifest_key, former_key = f"{manifest.prefix}/{MANIFEST_NAME}", f"{manifest.prefix}/{FORMER_NAME}"
    marker = store.read(manifest_key)
    remote = parse_manifest(marker)
    sizes = store.sizes(manifest.prefix, _span(manifest.prefix, remote)) if remote else {}
    changed = _find_changed(manifest, remote, sizes)
    if remote and not changed and remote.describes_same(manifest):
        on_progress(manifest.size, manifest.size)
        return remote, 0, 0
    sent = _upload(store, snapshot, changed, on_progress, manifest.prefix, sources)
    former = remote or parse_manifest(store.read(former_key))
    orphans = _find_orphans(former, manifest)
    is_switched = bool(changed or orphans)
    if former and is_switched:
        # Whoever goes on after an interruption must know which files have to go, also of those that come now.
        both = tuple(dict.fromkeys((*former.files, *manifest.files)))
        store.write(former_key, replace(former, files=both).to_bytes())
    if marker is not None and is_switched:
        # While names are switched the old manifest would vouch for a mixture, also if it was damaged on its way here.
        store.delete(manifest_key)
    store.settle()
    if former and is_switched:
        store.delete(*(f"{manifest.prefix}/{path}" for path in orphans))
        store.delete(former_key)
    # Last of all: where a manifest stands, nothing is left to be done.
    store.write(manifest_key, manifest.to_bytes(), is_new=is_switched)
    store.drop_unfinished(manifest.prefix, ABANDONED_S)
    return manifest, len(changed), sent


def find_remote_damage(store: Store, manifest: Manifest, *, deep: bool) -> list[str]:
    """Says what a store lacks of a unit."""
    remote = parse_manifest(store.read(f"{manifest.prefix}/{MANIFEST_NAME}"))
    if remote is None:
        return [f"{manifest.prefix}/{MANIFEST_NAME} is missing"]
    if not remote.describes_same(manifest):
        return [f"{manifest.prefix}/{MANIFEST_NAME} describes other files"]
    damage = []
    sizes = store.sizes(manifest.prefix)
    for record in manifest.files:
        key = f"{manifest.prefix}/{record.path}"
        size = sizes.get(key)
        if size is None:
            damage.append(f"{key} is missing")
        elif size != record.size:
            damage.append(f"{key} has {size} bytes instead of {record.size}")
        elif deep and not store.has_content(key, record):
            damage.append(f"{key} has other bytes")
    return damage


def clear_damage(store: Store, manifest: Manifest) -> list[str]:
    """Removes the objects of a unit that have other bytes than they should, so that publishing again brings them."""
    wrong = []
    sizes = store.sizes(manifest.prefix)
    for record in manifest.files:
        key = f"{manifest.prefix}/{record.path}"
        if key in sizes and (sizes[key] != record.size or not store.has_content(key, record)):
            wrong.append(key)
    store.delete(*wrong)
    return [f"{key} had other bytes" for key in wrong]


def remove_surplus(store: Store, run: str, keep: int, newest: str) -> list[str]:
    """Removes the checkpoints of a run that were published longest ago, beyond `keep`."""
    if keep <= 0:
        return []
    surplus = [manifest for manifest in _checkpoints(store, run)[:-keep] if manifest.name != newest]
    for manifest in surplus:
        _remove(store, manifest)
    return [manifest.name for manifest in surplus]


def list_units(store: Store, run: str) -> list[Manifest]:
    """The manifests of a run's units in a store, the newest last."""
    release = _read_manifest(store, run)
    return sorted([*_checkpoints(store, run), *([release] if release else [])], key=_age)


def _checkpoints(store: Store, run: str) -> list[Manifest]:
    names = (name for name in store.children(run) if CHECKPOINT_NAME.fullmatch(name))
    # A folder without our manifest is somebody else's, or an upload under way.
    found = [manifest for name in names if (manifest := _read_manifest(store, run, name))]
    return sorted(found, key=_age)


def _read_manifest(store: Store, run: str, checkpoint: str = "") -> Manifest | None:
    prefix = f"{run}/{checkpoint}" if checkpoint else run
    manifest = parse_manifest(store.read(f"{prefix}/{MANIFEST_NAME}"))
    if manifest is None or (manifest.name if manifest.kind == "checkpoint" else "") != checkpoint:
        return None
    return replace(manifest, run=run)  # a folder that somebody has renamed there still holds what it held


def _age(manifest: Manifest) -> tuple[str, int]:
    return manifest.created, manifest.step


def _find_changed(manifest: Manifest, remote: Manifest | None, sizes: Mapping[str, int]) -> list[FileRecord]:
    if remote is None:
        return list(manifest.files)
    return [
        record
        for record in manifest.files
        if record not in remote.files or sizes.get(f"{manifest.prefix}/{record.path}") != record.size
    ]


def _upload(
    store: Store,
    snapshot: Snapshot,
    changed: list[FileRecord],
    on_progress: Progress,
    prefix: str,
    sources: Mapping[str, str],
) -> int:
    done = {record.path: 0 for record in changed}
    arrived, total = 0, sum(record.size for record in changed)
    store.reserve(total)

    def count(path: str, bytes: int) -> None:
        nonlocal arrived
        arrived += bytes - done[path]
        done[path] = bytes
        on_progress(arrived, total)

    for record in changed:
        source = snapshot.folder / sources.get(record.path, record.path)
        if not source.is_file():
            raise PublishError(
                f"{source} vanished before it was published. Run `flowtuner publish` on the folder again."
            )
        key = f"{prefix}/{record.path}"
        store.stage(source, key, record, lambda bytes, _, path=record.path: count(path, bytes))  # type: ignore[misc]
    return total


def _span(prefix: str, remote: Manifest) -> tuple[str, str] | None:
    # What was recorded is all that has to be known: a listing of a thousand names a page may begin and end there.
    keys = sorted(f"{prefix}/{record.path}" for record in remote.files)
    return (keys[0], keys[-1]) if keys else None


def _find_orphans(former: Manifest | None, manifest: Manifest) -> list[str]:
    return (
        sorted({record.path for record in former.files} - {record.path for record in manifest.files}) if former else []
    )


def _remove(store: Store, manifest: Manifest) -> None:
    # The manifest goes first: from then on nobody takes the rest for a whole checkpoint.
    store.delete(f"{manifest.prefix}/{MANIFEST_NAME}")
    store.delete(*(f"{manifest.prefix}/{path}" for path in (FORMER_NAME, *(record.path for record in manifest.files))))
    store.drop_unfinished(manifest.prefix)
