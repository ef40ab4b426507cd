"""Asks the caches about one picture or caption, or about every row of them, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowtuner.engine.cache.explain import Explanation, explain
from flowtuner.engine.cache.identity import recall_identity
from flowtuner.engine.cache.places import index_root, latent_root, text_root
from flowtuner.engine.cache.shards import find_flipped, list_shards
from flowtuner.engine.data.scan import scan_datasets
from flowtuner.engine.data.settings import picture_entries, reference_entries

if TYPE_CHECKING:
    from flowtuner.options import LoadedConfig


def explain_subject(loaded: LoadedConfig, subject: str) -> list[Explanation]:
    """Why a picture or a caption is, or is not, in the caches of a run."""
    identity = recall_identity(loaded)
    scan = scan_datasets(loaded.datasets, loaded.config, index_dir=index_root(loaded.config), report=_ignore)
    return explain(subject, scan, identity)


@dataclass(frozen=True)
class Proof:
    """What reading every row came to: damaged files with the reason, and which of them were removed."""

    files: int
    rows: int
    damaged: dict[str, str]
    removed: list[str]


def verify_caches(loaded: LoadedConfig, *, removes: bool) -> Proof:
    """Reads every row of a run's caches and compares it with its checksum."""
    roots = [text_root(loaded.datasets, loaded.config)]
    roots += [
        latent_root(entry, loaded.config)
        for entry in (*picture_entries(loaded.datasets), *reference_entries(loaded.datasets))
    ]
    files = rows = 0
    damaged: dict[str, str] = {}
    removed: list[str] = []
    for root in dict.fromkeys(roots):
        shards, unreadable = list_shards(root)
        found = [(damage.path, damage.reason, damage.is_removable) for damage in unreadable]
        for shard in shards:
            files, rows = files + 1, rows + sum(map(len, shard.keys))
            if flipped := find_flipped(shard):
                found.append((shard.path, f"the bytes of {len(flipped)} rows changed", True))
        for path, reason, is_removable in found:
            damaged[str(path)] = reason
            if removes and is_removable:
                path.unlink(missing_ok=True)
                removed.append(str(path))
    return Proof(files, rows, damaged, removed)


def _ignore(done: int, total: int) -> None:
    """Looking takes too little time to report on."""
