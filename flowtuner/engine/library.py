"""A run's data: the scanned pictures, their captions, and both caches, filled and read."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from flowtuner import durable
from flowtuner.engine.cache.explain import CacheIdentity
from flowtuner.engine.cache.identity import describe_identity, save_identity
from flowtuner.engine.cache.keys import fingerprint
from flowtuner.engine.cache.latents import LatentCache
from flowtuner.engine.cache.modes import Mode, latent_mode, text_mode
from flowtuner.engine.cache.ondemand import LatentReader, TextReader
from flowtuner.engine.cache.places import find_text_entry, index_root
from flowtuner.engine.cache.store import Store
from flowtuner.engine.cache.text import TextCache
from flowtuner.engine.capsule import DataSet, summarize
from flowtuner.engine.data.sample import Sample
from flowtuner.engine.data.sampler import Sampler
from flowtuner.engine.data.samples import select
from flowtuner.engine.data.scan import Scan, scan_datasets
from flowtuner.engine.data.settings import picture_entries, reference_entries
from flowtuner.engine.data.sources import Source, open_source
from flowtuner.engine.family import Family, TextEncoder, Vae
from flowtuner.engine.feed import Feed, Rows
from flowtuner.engine.precision import Precision
from flowtuner.engine.ranks import Ranks
from flowtuner.engine.run import CacheReport, Portion
from flowtuner.engine.validation import texts_to_encode
from flowtuner.options import LoadedConfig

QUARANTINE = "quarantine.json"
UNCONDITIONAL = ""
WHOLE = Portion()

ReportStage = Callable[[str, str, str, int, int], None]


class Library:
    """Everything a run trains on; pictures are looked at and models opened only when something is missing."""

    def __init__(
        self,
        loaded: LoadedConfig,
        family: Family,
        precision: Precision,
        device: torch.device,
        report: ReportStage,
        ranks: Ranks,
        output_dir: Path,
    ) -> None:
        self._ranks = ranks
        self._output_dir = output_dir
        self._config = loaded.config
        self._entries = loaded.datasets
        self._family = family
        self._dtype = precision.base
        self._device = device
        self._report = report
        self._vae: Vae | None = None
        self._text_encoder: TextEncoder | None = None
        self._feed: Feed | None = None

    @cached_property
    def scan(self) -> Scan:
        """The usable pictures, and those set aside."""
        index = index_root(self._config)
        found = scan_datasets(self._entries, self._config, index_dir=index, report=self._report_scan)
        self._record_quarantine([(fault.path, fault.reason) for fault in found.quarantined])
        self._open_sampler(found.samples, seed=0)  # a bucket too small is said before caching
        return found

    @cached_property
    def digest(self) -> str:
        """A hash of everything that decides what the n-th micro batch holds."""
        return self.scan.digest

    @cached_property
    def summary(self) -> dict[str, DataSet]:
        """How many samples each data set has, and a hash of them."""
        return summarize(self.scan)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Hashes of the model folder's parts: what is trained, and what the caches are filled by."""
        identity = self._identity
        trained = fingerprint(self._source / self._family.component, index_dir=index_root(self._config))
        return {"trained": trained, "vae": identity.vae, "text": identity.encoder}

    def cache_text(self, portion: Portion = WHOLE) -> dict[str, Any]:
        """Encodes captions, validation prompts and the empty prompt, as far as they are missing and wanted now."""
        report = self._text.encode_missing(
            self._prompts() if self._text_mode is Mode.FILLED else [],
            self._load_text_encoder,
            batch_size=self._text_batch_size,
            write_rows=self._text_rows,
            report=lambda done, total: self._report("text_cache", "running", "encoding text", done, total),
            portion=portion,
        )
        self._let_go(report)
        return self._finish("text_cache", "text", report)

    def cache_latents(self, portion: Portion = WHOLE) -> dict[str, Any]:
        """Encodes the pictures that are missing and wanted now."""
        report = self._latents.encode_missing(
            self.scan.samples,
            self._open_encoder,
            device=self._device,
            batch_size=self._config.vae_batch_size,
            write_rows=_first(self._config.write_batch_size, 128),
            report=lambda done, total: self._report("vae_cache", "running", "encoding pictures", done, total),
            portion=portion,
            filled={name for name, mode in self._latent_modes.items() if mode is Mode.FILLED},
        )
        self._vae = None
        self._let_go(report)
        faults = (*((fault.path, fault.reason) for fault in self.scan.quarantined), *report.quarantined)
        self._record_quarantine(list(faults))
        whole = CacheReport(report.total, report.hits, report.encoded, report.seconds, faults)
        return self._finish("vae_cache", "pictures", whole)

    def open_sampler(self, seed: int) -> Sampler:
        """The order of the run: over the pictures that are in the cache or come there when they are drawn."""
        return self._open_sampler(self._usable, seed)

    def open_feed(self, seed: int) -> Feed:
        """The way from the caches to the training loop."""
        self._feed = Feed(
            self.open_sampler(seed),
            self._family,
            self._latent_reader.read,
            self.read_text,
            self._config.caption_dropout_probability,
            seed,
            self._device,
            self._dtype,
            frozenset(entry.id for entry in self._entries if entry.is_regularisation_data),
            self._ranks,
            self._config.dataloader_prefetch_qlen if self._config.dataloader_prefetch else 0,
        )
        return self._feed

    def close(self) -> None:
        """Ends what works ahead, and writes what was encoded meanwhile."""
        if self._feed:
            self._feed.close()
        for reader in ("_latent_reader", "_text_reader"):
            if reader in vars(self):
                vars(self)[reader].close()

    def open_vae(self) -> Vae:
        """The autoencoder, loaded once and kept for the next validation."""
        if self._vae is None:
            self._vae = self._family.load_vae(self._dtype, self._device)
        return self._vae

    def read_text(self, prompt: str) -> Rows:
        """The encoded prompt."""
        return self._text_reader.read(prompt)

    def read_references(self, place: int) -> list[torch.Tensor]:
        """What the validation prompt at this place is drawn after: always the same; nothing without pairs."""
        rows = self._pairs
        if not len(rows):
            return []
        return [self._latent_reader.read(one) for one in rows[place % len(rows)].references]

    @cached_property
    def _pairs(self) -> Sequence[Sample]:
        """The pairs that validation may show."""
        hidden = {entry.id for entry in self._entries if entry.disable_validation}
        shown = (
            row
            for row, sample in enumerate(self.scan.samples)
            if sample.references and sample.dataset_id not in hidden and self._is_usable(sample)
        )
        return select(self.scan.samples, shown)

    @cached_property
    def _usable(self) -> Sequence[Sample]:
        """The samples that are in the cache with all their references, or come there when they are drawn."""
        return select(
            self.scan.samples, (row for row, sample in enumerate(self.scan.samples) if self._is_usable(sample))
        )

    def _is_usable(self, sample: Sample) -> bool:
        return all(
            self._latent_modes[each.dataset_id] is not Mode.FILLED or self._latents.has(each)
            for each in (sample, *sample.references)
        )

    def _prompts(self) -> list[str]:
        captions = (caption for sample in self.scan.samples for caption in sample.captions)
        return [UNCONDITIONAL, *captions, *texts_to_encode(self._config)]

    @cached_property
    def _latent_modes(self) -> dict[str, Mode]:
        entries = (*picture_entries(self._entries), *reference_entries(self._entries))
        return {entry.id: latent_mode(entry, self._config) for entry in entries}

    @cached_property
    def _latent_reader(self) -> LatentReader:
        return LatentReader(
            self._latents,
            lambda: self.scan.samples,
            self._latent_modes,
            self._open_encoder,
            self._device,
            self._config.vae_batch_size,
            _first(self._config.write_batch_size, 128),
        )

    @cached_property
    def _text_reader(self) -> TextReader:
        return TextReader(
            self._text,
            self._prompts,
            self._text_mode,
            self._keep_text_encoder,
            self._text_batch_size,
            self._text_rows,
        )

    @property
    def _text_mode(self) -> Mode:
        return text_mode(self._entries, self._config)

    @property
    def _text_batch_size(self) -> int:
        entry = find_text_entry(self._entries)
        return int(_first(entry and entry.text_encoder_batch_size, self._config.text_encoder_batch_size, 1))

    @property
    def _text_rows(self) -> int:
        entry = find_text_entry(self._entries)
        return int(_first(entry and entry.write_batch_size, self._config.write_batch_size, 128))

    def _load_text_encoder(self) -> TextEncoder:
        return self._family.load_text_encoder(self._dtype, self._device)

    def _keep_text_encoder(self) -> TextEncoder:
        if self._text_encoder is None:
            self._text_encoder = self._load_text_encoder()
        return self._text_encoder

    @cached_property
    def _identity(self) -> CacheIdentity:
        from flowtuner.engine.families.parts.loading import find_replaced

        dtype = str(self._dtype).removeprefix("torch.")
        tokens, replaced = self._family.max_text_tokens, find_replaced(self._family)
        identity = describe_identity(self._config, self._entries, self._source, dtype, tokens, replaced)
        save_identity(self._config, self._source, identity, replaced)
        return identity

    @cached_property
    def _source(self) -> Path:
        from flowtuner.engine.families.parts.loading import locate_folder

        return locate_folder(self._family)

    @cached_property
    def _text(self) -> TextCache:
        identity = self._identity
        store = Store(identity.text_root)
        return TextCache(store, identity.encoder, identity.max_tokens, self._dtype)

    @cached_property
    def _latents(self) -> LatentCache:
        identity = self._identity
        stores = {root: Store(root) for root in dict.fromkeys(identity.latent_roots.values())}
        by_dataset = {name: stores[root] for name, root in identity.latent_roots.items()}
        return LatentCache(by_dataset, identity.vae_of, self._dtype, self._read_picture)

    @cached_property
    def _sources(self) -> dict[str, Source]:
        entries = (*picture_entries(self._entries), *reference_entries(self._entries))
        return {entry.id: open_source(entry, self._config, index_root(self._config)) for entry in entries}

    def _read_picture(self, sample: Sample) -> bytes:
        return self._sources[sample.dataset_id].read(sample.path)

    def _open_sampler(self, samples: Sequence[Sample], seed: int) -> Sampler:
        return Sampler.for_run(samples, self._entries, self._config, seed, self._ranks.world)

    def _open_encoder(self) -> Callable[[torch.Tensor], torch.Tensor]:
        vae = self.open_vae()
        if not vae.sees_time:
            vae.module.to(memory_format=torch.channels_last)
        return vae.encode

    def _report_scan(self, done: int, total: int) -> None:
        self._report("text_cache", "running", "looking at the pictures", done, total)

    def _record_quarantine(self, faults: list[tuple[str, str]]) -> None:
        if not self._ranks.is_first:
            return
        listed = [{"path": path, "reason": reason} for path, reason in faults]
        durable.write_json(self._output_dir / QUARANTINE, listed)

    def _finish(self, key: str, noun: str, report: CacheReport) -> dict[str, Any]:
        self._report(
            key, "completed", f"{noun}: {report.hits} cached, {report.encoded} encoded", report.total, report.total
        )
        return vars(report) | {"quarantined": [list(fault) for fault in report.quarantined]}

    def _let_go(self, report: CacheReport) -> None:
        if not report.encoded:
            return  # nothing was loaded, and looking for garbage takes half a second
        # Encoders leave memory before the model comes.
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _first(*values: Any) -> Any:
    return next(value for value in values if value)
