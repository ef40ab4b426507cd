"""Where the caches of a run stand on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flowtuner.options import DatasetEntry, TrainingConfig

DEFAULT_LATENTS = "cache/latents"
DEFAULT_TEXT = "cache/text"
INDEX = "cache/index"


def latent_root(entry: DatasetEntry, config: TrainingConfig) -> Path:
    """The folder of a dataset's latents: its own, the global one, or one below the output folder."""
    chosen = entry.cache_dir_vae or config.cache_dir_vae
    return _fill(chosen, entry, config) if chosen else Path(config.output_dir) / DEFAULT_LATENTS


def text_root(entries: Sequence[DatasetEntry], config: TrainingConfig) -> Path:
    """The folder of the encoded prompts: that of the default text_embeds entry, or one below the output folder."""
    entry = find_text_entry(entries)
    if entry is None or not entry.cache_dir:
        return Path(config.output_dir) / DEFAULT_TEXT
    return _fill(entry.cache_dir, entry, config)


def index_root(config: TrainingConfig) -> Path:
    """The folder of what is remembered about pictures and weights."""
    return Path(config.output_dir) / INDEX


def find_text_entry(entries: Sequence[DatasetEntry]) -> DatasetEntry | None:
    """The text_embeds entry that counts: the default one, or the only one."""
    listed = [entry for entry in entries if entry.dataset_type == "text_embeds" and not entry.disabled]
    return next((entry for entry in listed if entry.default), listed[0] if listed else None)


def _fill(template: str | Path, entry: DatasetEntry, config: TrainingConfig) -> Path:
    filled = str(template).replace("{id}", entry.id).replace("{model_family}", str(config.model_family))
    return Path(filled).expanduser()
