"""The datasets of a run, looked at before its start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from flowtuner.engine.cache.places import index_root
from flowtuner.engine.data.faces import check_faces
from flowtuner.engine.data.files import FoundFile
from flowtuner.engine.data.sampler import Sampler
from flowtuner.engine.data.scan import scan_datasets
from flowtuner.engine.data.settings import picture_entries, reference_entries, resolve_dataset, resolve_references
from flowtuner.engine.data.sources import open_source
from flowtuner.engine.data.tables import check_table
from flowtuner.engine.findings import Finding
from flowtuner.errors import DataError, SourceDown
from flowtuner.options import DatasetEntry, LoadedConfig, TrainingConfig

SCAN_FILES = 5000
SCAN_BYTES = 1 << 30
NAMED_FAULTS = 5


def inspect_data(loaded: LoadedConfig) -> Iterator[Finding]:
    """What is wrong with the datasets: where they lie, their tables, and, if they are small, every picture."""
    entries = [*picture_entries(loaded.datasets), *reference_entries(loaded.datasets)]
    index = index_root(loaded.config)
    faults = [fault for entry in entries if (fault := _check_entry(entry, loaded.config, index))]
    if faults:
        yield from (Finding("error", "data_backend_config", fault) for fault in faults)
        return
    if not _is_small(entries, loaded.config, index):
        return  # the run itself looks at this many; its first stage still comes before anything is loaded
    try:
        # Nothing is done twice: the scan remembers what it saw, and the run takes it from there.
        scan = scan_datasets(loaded.datasets, loaded.config, index_dir=index, report=lambda done, total: None)
        Sampler.for_run(scan.samples, loaded.datasets, loaded.config, seed=0)
    except DataError as error:
        yield Finding("error", "data_backend_config", str(error))
        return
    if scan.quarantined:
        named = "; ".join(str(fault) for fault in scan.quarantined[:NAMED_FAULTS])
        total = len(scan.samples) + len(scan.quarantined)
        yield Finding(
            "warning",
            "data_backend_config",
            f"{len(scan.quarantined)} of {total} pictures are left out: {named}",
            f"The run lists all of them in {Path(loaded.config.output_dir) / 'quarantine.json'}.",
        )


def _check_entry(entry: DatasetEntry, config: TrainingConfig, index: Path) -> str | None:
    is_trained = entry.dataset_type != "conditioning"
    try:
        settings = resolve_dataset(entry, config) if is_trained else resolve_references(entry, config)
        source = open_source(entry, config, index)
        source.check()
        if settings.captions.table:
            check_table(settings.captions.table, source.fault)
        if settings.crop.crop and settings.crop.style == "face":
            check_faces(entry.id)
    except (DataError, SourceDown) as error:
        return str(error)
    return None


def _is_small(entries: Sequence[DatasetEntry], config: TrainingConfig, index: Path) -> bool:
    count = size = 0
    for entry in entries:
        source = open_source(entry, config, index)
        if source.is_remote:
            return False
        for file in source.walk():
            if isinstance(file, FoundFile):
                count, size = count + 1, size + (file.stamp[0] if entry.type == "local" else 0)
            if count > SCAN_FILES or size > SCAN_BYTES:
                return False
    return True
