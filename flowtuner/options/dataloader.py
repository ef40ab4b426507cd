"""The dataloader file: every entry checked alone, then all of them together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flowtuner.errors import Fault
from flowtuner.options.config import TrainingConfig
from flowtuner.options.dataset import MEDIA_TYPES, DatasetEntry
from flowtuner.options.dataset_rules import check_entries, check_entry
from flowtuner.options.documents import Document
from flowtuner.options.faults import translate
from flowtuner.options.fields import extra_of
from flowtuner.options.names import is_ignored, spellings
from flowtuner.options.places import Places
from flowtuner.options.template import expand

# What an entry takes from the options of the run when it is silent itself.
INHERITED = (
    "resolution",
    "resolution_type",
    "minimum_image_size",
    "maximum_image_size",
    "target_downsample_size",
    "max_upscale_threshold",
    "caption_strategy",
    "instance_prompt",
    "prepend_instance_prompt",
    "only_instance_prompt",
    "disable_multiline_split",
    "ignore_missing_files",
    "cache_dir_vae",
)
# Data sets that hold captions of their own.
CAPTIONED_TYPES = ("csv", "huggingface")
REMOVED = {
    "disable_vae_cache": "vae_cache_disable",
    "pixel_area": "resolution_type",
    "vae_cache_preprocess": "vae_cache_ondemand",
}


@dataclass(frozen=True)
class Located:
    """One entry and where it stands in its file."""

    entry: DatasetEntry
    number: int
    document: Document

    def fault(self, key: str, value: Any, problem: str, allowed: str = "", suggestion: str = "") -> Fault:
        """A fault of one key of the entry."""
        origin = str(self.document.origin(self.number, key))
        return Fault(f"{self.entry.id}.{key}", value, origin, problem, allowed, suggestion)


def read_datasets(
    document: Document, config: TrainingConfig, places: Places, environ: Mapping[str, str], faults: list[Fault]
) -> tuple[DatasetEntry, ...]:
    """The enabled entries, gaps filled from the options of the run and paths made absolute."""
    listed = document.value
    if isinstance(listed, dict):
        listed = [listed]
    if not isinstance(listed, list) or not listed:
        faults.append(
            Fault("data_backend_config", None, document.name, "is no list of dataset entries", "[{...}, ...]")
        )
        return ()
    found = [
        located
        for number, raw in enumerate(listed)
        if (located := _read_entry(raw, number, document, config, places, environ, faults))
    ]
    active = [located for located in found if not located.entry.disabled]
    known = {fault.option for fault in faults}
    for located in active:
        # What an entry inherits has been complained about where it was said.
        conflicts = [conflict for conflict in check_entry(located.entry) if conflict[0] not in known]
        faults.extend(_place(conflicts, located))
    if len(found) == len(listed):
        by_id = {located.entry.id: located for located in found}
        for identity, *conflict in check_entries([located.entry for located in found]):
            faults.extend(_place([tuple(conflict)], by_id[identity]) if identity else [_missing(document, conflict)])
    return _with_default_texts([located.entry for located in active], config)


def _missing(document: Document, conflict: list[Any]) -> Fault:
    return Fault("data_backend_config", None, document.name, *conflict[1:])


def _place(conflicts: Any, located: Located) -> Iterator[Fault]:
    for key, problem, *rest in conflicts:
        value = getattr(located.entry, key, None)
        yield located.fault(key, str(value) if isinstance(value, Path) else value, problem, *rest)


def _read_entry(
    raw: Any,
    number: int,
    document: Document,
    config: TrainingConfig,
    places: Places,
    environ: Mapping[str, str],
    faults: list[Fault],
) -> Located | None:
    if not isinstance(raw, dict):
        origin = str(document.origin(number))
        faults.append(Fault(f"entry {number + 1}", raw, origin, "is no object", "an object: {...}"))
        return None
    name = str(raw.get("id") or f"entry {number + 1}")
    before = len(faults)
    values = _rename(raw, name, number, document, environ, faults)
    try:
        entry = DatasetEntry.model_validate(values)
    except ValidationError as error:
        faults.extend(
            translate(
                error,
                DatasetEntry,
                name=lambda key: f"{name}.{key}",
                origin=lambda key: str(document.origin(number, key) if key in raw else document.origin(number)),
            )
        )
        return None
    if len(faults) > before:
        return None
    return Located(_resolve(entry, config, places, document), number, document)


def _rename(
    raw: dict[str, Any],
    name: str,
    number: int,
    document: Document,
    environ: Mapping[str, str],
    faults: list[Fault],
) -> dict[str, Any]:
    known = spellings(DatasetEntry)
    values: dict[str, Any] = {}
    for key, value in raw.items():
        origin = str(document.origin(number, key))
        expanded, missing = expand(value, environ)
        for variable in missing:
            problem = f"names the environment variable {variable}, which is not set"
            faults.append(Fault(f"{name}.{key}", f"{{env:{variable}}}", origin, problem, "", f"Set {variable}."))
        if key in known:
            if expanded is not None:
                values[known[key].option] = expanded
        elif not is_ignored(key):
            near = REMOVED.get(key) or next(iter(get_close_matches(key, known, n=1, cutoff=0.6)), None)
            hint = f"Did you mean {near}?" if near else "docs/options.md lists all keys."
            faults.append(Fault(f"{name}.{key}", None, origin, "is no known key of a dataset entry", "", hint))
    return values


def _resolve(entry: DatasetEntry, config: TrainingConfig, places: Places, document: Document) -> DatasetEntry:
    inherits = entry.dataset_type in MEDIA_TYPES
    if inherits and entry.type in CAPTIONED_TYPES and entry.caption_strategy is None:
        entry = entry.model_copy(update={"caption_strategy": entry.type})
    gaps = [key for key in INHERITED if inherits and getattr(entry, key) is None]
    entry = entry.model_copy(update={key: getattr(config, key) for key in gaps})
    updates: dict[str, Any] = {}
    for key, field in DatasetEntry.model_fields.items():
        value = getattr(entry, key)
        if value is not None and extra_of(field).get("path"):
            updates[key] = _locate(fill_placeholders(str(value), config, entry.id), places, document)
    if entry.parquet and entry.parquet.path:
        path = _locate(str(entry.parquet.path), places, document)
        updates["parquet"] = entry.parquet.model_copy(update={"path": path})
    if entry.dataset_name and os.path.isdir(folder := _locate(entry.dataset_name, places, document)):
        updates["dataset_name"] = str(folder)
    return entry.model_copy(update=updates)


def _locate(text: str, places: Places, document: Document) -> Path:
    here = places.create(text)
    beside = (places.working_dir / document.name).parent / text
    return beside if not os.path.exists(here) and document.kind == "file" and os.path.exists(beside) else here


def fill_placeholders(text: str, config: TrainingConfig, identity: str = "") -> str:
    """Puts the run's family, type and output folder, and an entry's id, into a path."""
    values = {
        "id": identity,
        "model_family": config.model_family,
        "model_flavour": config.model_flavour or "default",
        "model_type": config.model_type,
        "output_dir": str(config.output_dir),
    }
    for name, value in values.items():
        if value:
            text = text.replace("{" + name + "}", value)
    return text


def _with_default_texts(entries: list[DatasetEntry], config: TrainingConfig) -> tuple[DatasetEntry, ...]:
    texts = [entry for entry in entries if entry.dataset_type == "text_embeds"]
    if not texts:
        root = config.cache_dir_text or (config.cache_dir or config.output_dir / "cache") / "text"
        made = DatasetEntry(id="text-embeds", dataset_type="text_embeds", default=True, cache_dir=root)
        return (*entries, made)
    if len(texts) == 1 and not texts[0].default:
        sole = texts[0].model_copy(update={"default": True})
        return tuple(sole if entry is texts[0] else entry for entry in entries)
    return tuple(entries)
