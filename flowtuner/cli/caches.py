"""Asks the caches about one picture or caption, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowtuner.engine.cache.explain import Explanation, explain
from flowtuner.engine.cache.identity import recall_identity
from flowtuner.engine.cache.places import index_root
from flowtuner.engine.data.scan import scan_datasets

if TYPE_CHECKING:
    from flowtuner.options import LoadedConfig


def explain_subject(loaded: LoadedConfig, subject: str) -> list[Explanation]:
    """Why a picture or a caption is, or is not, in the caches of a run."""
    identity = recall_identity(loaded)
    scan = scan_datasets(loaded.datasets, loaded.config, index_dir=index_root(loaded.config), report=_ignore)
    return explain(subject, scan, identity)


def _ignore(done: int, total: int) -> None:
    """Looking takes too little time to report on."""
