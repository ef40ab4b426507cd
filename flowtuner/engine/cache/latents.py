"""Encoded pictures: small batches of one bucket, with the next pictures being decoded meanwhile."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial

import torch

from flowtuner.engine.cache.keys import latent_key, latent_origin
from flowtuner.engine.cache.progress import Progress, Report
from flowtuner.engine.cache.store import Store, Writer
from flowtuner.engine.data.images import Pixels, UnusableImageError, load_pixels, quiet_decoding
from flowtuner.engine.data.sample import Sample, Size
from flowtuner.engine.data.threads import count_threads
from flowtuner.engine.run import CacheReport
from flowtuner.errors import DataError

LATENT = "latent"
NAMED_FAULTS = 5
KEPT_KEYS = 1 << 16

ReadSample = Callable[[Sample], bytes]
Encode = Callable[[torch.Tensor], torch.Tensor]
Faults = list[tuple[str, str]]
Loading = tuple[Sample, Future[Pixels]]


@dataclass
class _Work:
    writer: Writer
    progress: Progress
    faults: Faults = field(default_factory=list)
    encoded: int = 0


class LatentCache:
    """The encoded pictures of one autoencoder in one number format; each dataset has its store."""

    def __init__(
        self, stores: Mapping[str, Store], vae: str, dtype: torch.dtype, read: ReadSample | None = None
    ) -> None:
        self.stores = stores
        self._load = partial(load_pixels, read=read)
        self._vae = vae
        self._dtype = dtype
        self._dtype_name = str(dtype).removeprefix("torch.")
        self._key = lru_cache(KEPT_KEYS)(self._make_key)

    def read(self, sample: Sample) -> torch.Tensor:
        """The latent of a sample, straight from the mapped file."""
        return self.stores[sample.dataset_id].read(self._key(sample))[LATENT]

    def has(self, sample: Sample) -> bool:
        """Whether a sample is encoded already."""
        return self._key(sample) in self.stores[sample.dataset_id]

    def encode_missing(
        self,
        samples: Sequence[Sample],
        open_encoder: Callable[[], Encode],
        *,
        device: torch.device,
        batch_size: int,
        write_rows: int,
        report: Report,
    ) -> CacheReport:
        """Encodes the pictures that no shard holds; what cannot be decoded or encoded is set aside and reported."""
        missing = self._find_missing(samples)
        progress = Progress(missing.count, report)
        faults: Faults = []
        encoded = 0
        if missing.count:
            encode = open_encoder()
            for store, batches in missing.by_store(batch_size):
                store.remove_damaged()
                with store.writer(write_rows) as writer:
                    work = _Work(writer, progress, faults)
                    self._encode_all(batches, encode, device, batch_size, work)
                    encoded += work.encoded
            if faults and not encoded and missing.count == missing.total:
                listed = "\n".join(f"  - {path}: {reason}" for path, reason in faults[:NAMED_FAULTS])
                raise DataError(f"none of the {len(faults)} pictures can be encoded:\n{listed}")
        progress.finish()
        return CacheReport(missing.total, missing.total - missing.count, encoded, progress.seconds, tuple(faults))

    def _find_missing(self, samples: Sequence[Sample]) -> _Missing:
        missing = _Missing(samples)
        seen: set[tuple[int, bytes]] = set()
        for row, sample in enumerate(samples):
            for place, each in enumerate((sample, *sample.references)):
                store, key = self.stores[each.dataset_id], self._key(each)
                mark = id(store), bytes.fromhex(key)
                if mark in seen:
                    continue
                seen.add(mark)
                missing.total += 1
                if key not in store:
                    missing.add(store, each.bucket, row, place)
        return missing

    def _encode_all(
        self, batches: Iterator[list[Sample]], encode: Encode, device: torch.device, batch_size: int, work: _Work
    ) -> None:
        with quiet_decoding(), ThreadPoolExecutor(max(1, count_threads() - 1), thread_name_prefix="pixels") as pool:
            try:
                for loading in self._load_ahead(batches, pool, ahead=2 + 2 * count_threads() // batch_size):
                    self._encode_batch(loading, encode, device, work)
                    work.progress.advance(len(loading))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _encode_batch(self, loading: list[Loading], encode: Encode, device: torch.device, work: _Work) -> None:
        loaded: list[tuple[Sample, torch.Tensor]] = []
        for sample, future in loading:
            try:
                loaded.append((sample, torch.from_numpy(future.result())))
            except UnusableImageError as error:
                work.faults.append((sample.path, str(error)))
        if not loaded:
            return
        pixels = torch.stack([one for _, one in loaded])
        with torch.inference_mode():
            # channels_last: convolutions on a CPU are 1.7 times faster with it.
            moved = pixels.to(device, self._dtype, memory_format=torch.channels_last)
            latents = encode(moved).to("cpu", self._dtype)
            finite = torch.isfinite(latents).flatten(1).all(dim=1).tolist()
        for (sample, _), latent, is_finite in zip(loaded, latents, finite, strict=True):
            if is_finite:
                work.writer.put(self._key(sample), {LATENT: latent}, latent_origin(sample, self._vae, self._dtype_name))
                work.encoded += 1
            else:
                work.faults.append((sample.path, f"the VAE gave infinite or undefined numbers in {self._dtype_name}"))

    def _load_ahead(
        self, batches: Iterator[list[Sample]], pool: ThreadPoolExecutor, ahead: int
    ) -> Iterator[list[Loading]]:
        waiting: deque[list[Loading]] = deque()
        for batch in batches:
            waiting.append([(sample, pool.submit(self._load, sample)) for sample in batch])
            if len(waiting) > ahead:
                yield waiting.popleft()
        yield from waiting

    def _make_key(self, sample: Sample) -> str:
        return latent_key(sample.content, sample.plan, self._vae, self._dtype_name)


class _Missing:
    """What is to be encoded, by store and bucket: positions only, for there may be millions."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.total = 0
        self._samples = samples
        self._stores: dict[int, tuple[Store, dict[Size, array[int]]]] = {}

    @property
    def count(self) -> int:
        """How many pictures there are to encode."""
        return sum(len(rows) // 2 for _, buckets in self._stores.values() for rows in buckets.values())

    def add(self, store: Store, bucket: Size, row: int, place: int) -> None:
        """Adds the picture of a sample, or the reference at this place of it."""
        _, buckets = self._stores.setdefault(id(store), (store, {}))
        buckets.setdefault(bucket, array("q")).extend((row, place))

    def by_store(self, batch_size: int) -> Iterator[tuple[Store, Iterator[list[Sample]]]]:
        """For each store the batches of its pictures."""
        for store, buckets in self._stores.values():
            yield store, self._cut(buckets, batch_size)

    def _cut(self, buckets: Mapping[Size, array[int]], batch_size: int) -> Iterator[list[Sample]]:
        # Largest pictures first: memory that does not suffice is noticed at once.
        for bucket in sorted(buckets, key=lambda size: (-size[0] * size[1], size)):
            rows = buckets[bucket]
            for start in range(0, len(rows), 2 * batch_size):
                yield [
                    self._find(rows[at], rows[at + 1]) for at in range(start, min(len(rows), start + 2 * batch_size), 2)
                ]

    def _find(self, row: int, place: int) -> Sample:
        sample = self._samples[row]
        return sample.references[place - 1] if place else sample
