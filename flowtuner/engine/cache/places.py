"""Where the caches of a run stand on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flowtuner.options import DatasetEntry, TrainingConfig

LATENTS = "latents"
TEXT = "text"
INDEX = "index"


def latent_root(entry: DatasetEntry, config: TrainingConfig) -> Path:
    """The folder of a dataset's latents: its own, the global one, or one below `cache_dir`."""
    return _fill(entry.cache_dir_vae or config.cache_dir_vae or _root(config) / LATENTS, entry, config)


def text_root(entries: Sequence[DatasetEntry], config: TrainingConfig) -> Path:
    """The folder of the encoded prompts: that of the default text_embeds entry, or one below `cache_dir`."""
    entry = find_text_entry(entries)
    if entry is None or not entry.cache_dir:
        return config.cache_dir_text or _root(config) / TEXT
    return _fill(entry.cache_dir, entry, config)


def index_root(config: TrainingConfig) -> Path:
    """The folder of what is remembered about pictures and weights."""
    return _root(config) / INDEX


def find_text_entry(entries: Sequence[DatasetEntry]) -> DatasetEntry | None:
    """The text_embeds entry that counts: the default one, or the only one."""
    listed = [entry for entry in entries if entry.dataset_type == "text_embeds" and not entry.disabled]
    return next((entry for entry in listed if entry.default), listed[0] if listed else None)


def _root(config: TrainingConfig) -> Path:
    return Path(config.cache_dir or Path(config.output_dir) / "cache")


def _fill(template: str | Path, entry: DatasetEntry, config: TrainingConfig) -> Path:
    filled = str(template).replace("{id}", entry.id).replace("{model_family}", str(config.model_family))
    return Path(filled).expanduser()
