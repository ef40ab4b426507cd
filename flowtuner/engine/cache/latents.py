"""Encoded pictures: small batches of one bucket, with the next pictures being decoded meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from flowtuner.engine.cache.keys import latent_key, latent_origin
from flowtuner.engine.cache.progress import Progress, Report
from flowtuner.engine.cache.store import Store, Writer
from flowtuner.engine.data.images import Pixels, UnusableImageError, load_pixels, quiet_decoding
from flowtuner.engine.data.sample import Sample
from flowtuner.engine.data.threads import count_threads
from flowtuner.engine.run import CacheReport
from flowtuner.errors import DataError

LATENT = "latent"
NAMED_FAULTS = 5

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

    def __init__(self, stores: Mapping[str, Store], vae: str, dtype: torch.dtype) -> None:
        self.stores = stores
        self._vae = vae
        self._dtype = dtype
        self._dtype_name = str(dtype).removeprefix("torch.")
        self._keys: dict[tuple[str, object], str] = {}

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
        distinct: dict[tuple[int, str], Sample] = {}
        for sample in samples:
            distinct.setdefault((id(self.stores[sample.dataset_id]), self._key(sample)), sample)
        missing = [sample for sample in distinct.values() if not self.has(sample)]
        progress = Progress(len(missing), report)
        faults: Faults = []
        encoded = 0
        if missing:
            encode = open_encoder()
            for store, own in self._by_store(missing):
                store.remove_damaged()
                with store.writer(write_rows) as writer:
                    work = _Work(writer, progress, faults)
                    self._encode_all(own, encode, device, batch_size, work)
                    encoded += work.encoded
            if faults and not encoded and len(missing) == len(distinct):
                listed = "\n".join(f"  - {path}: {reason}" for path, reason in faults[:NAMED_FAULTS])
                raise DataError(f"none of the {len(faults)} pictures can be encoded:\n{listed}")
        progress.finish()
        return CacheReport(len(distinct), len(distinct) - len(missing), encoded, progress.seconds, tuple(faults))

    def _by_store(self, samples: list[Sample]) -> list[tuple[Store, list[Sample]]]:
        grouped: dict[int, tuple[Store, list[Sample]]] = {}
        for sample in samples:
            store = self.stores[sample.dataset_id]
            grouped.setdefault(id(store), (store, []))[1].append(sample)
        return list(grouped.values())

    def _encode_all(
        self, samples: list[Sample], encode: Encode, device: torch.device, batch_size: int, work: _Work
    ) -> None:
        batches = _cut(samples, batch_size)
        with quiet_decoding(), ThreadPoolExecutor(max(1, count_threads() - 1), thread_name_prefix="pixels") as pool:
            try:
                for loading in _load_ahead(batches, pool, ahead=2 + 2 * count_threads() // batch_size):
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

    def _key(self, sample: Sample) -> str:
        known = sample.content, sample.plan
        key = self._keys.get(known)
        if key is None:
            key = self._keys[known] = latent_key(sample.content, sample.plan, self._vae, self._dtype_name)
        return key


def _cut(samples: list[Sample], batch_size: int) -> Iterator[list[Sample]]:
    by_bucket: dict[tuple[int, int], list[Sample]] = {}
    for sample in samples:
        by_bucket.setdefault(sample.bucket, []).append(sample)
    # Largest pictures first: memory that does not suffice is noticed at once.
    for bucket in sorted(by_bucket, key=lambda size: (-size[0] * size[1], size)):
        own = by_bucket[bucket]
        for start in range(0, len(own), batch_size):
            yield own[start : start + batch_size]


def _load_ahead(batches: Iterator[list[Sample]], pool: ThreadPoolExecutor, ahead: int) -> Iterator[list[Loading]]:
    waiting: deque[list[Loading]] = deque()
    for batch in batches:
        waiting.append([(sample, pool.submit(load_pixels, sample)) for sample in batch])
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting
