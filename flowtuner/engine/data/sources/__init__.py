"""Where pictures come from: one file for each `type` of a dataset entry, found by its name."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from flowtuner.engine.data.sources.source import Source
from flowtuner.errors import DataError
from flowtuner.options import DatasetEntry, TrainingConfig

__all__ = ["Source", "list_types", "open_source"]

PARTS = ("kept", "source")


def list_types() -> list[str]:
    """The types there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in PARTS)


def open_source(entry: DatasetEntry, config: TrainingConfig, index_dir: Path) -> Source:
    """The source of an entry; nothing is read yet."""
    if entry.type not in list_types():
        allowed = ", ".join(list_types())
        raise DataError(f"dataset {entry.id}: type {entry.type!r} is not supported. Allowed: {allowed}.")
    module = importlib.import_module(f"{__name__}.{entry.type}")
    source: Source = module.open_source(entry, config, index_dir)
    return source
