"""Encoded pictures: small batches of one bucket, with the next pictures being decoded meanwhile."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial

import torch

from flowtuner.engine.cache.batches import PictureBatches
from flowtuner.engine.cache.explain import PIXELS
from flowtuner.engine.cache.keys import latent_key, latent_origin
from flowtuner.engine.cache.progress import Progress, Report
from flowtuner.engine.cache.store import Store, Writer
from flowtuner.engine.data.films import load_frames
from flowtuner.engine.data.images import Pixels, UnusableImageError, load_pixels, quiet_decoding
from flowtuner.engine.data.sample import FilmPlan, Sample
from flowtuner.engine.data.threads import count_threads
from flowtuner.engine.run import CacheReport, Portion
from flowtuner.errors import DataError

LATENT = "latent"
NAMED_FAULTS = 5
KEPT_KEYS = 1 << 16
WHOLE = Portion()

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
        self,
        stores: Mapping[str, Store],
        vae: str | Callable[[str], str],
        dtype: torch.dtype,
        read: ReadSample | None = None,
    ) -> None:
        self.stores = stores
        self._load = partial(_load, read=read)
        self._vae_of = vae if callable(vae) else lambda dataset_id: vae
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
        portion: Portion = WHOLE,
        filled: Container[str] | None = None,
    ) -> CacheReport:
        """Encodes the pictures that no shard holds; what cannot be decoded or encoded is set aside and reported."""
        everything = PictureBatches(samples, self.stores, self._key, batch_size, filled)
        batches = everything.of(portion)
        total, count = (sum(batch.size for batch in batches), sum(len(batch.missing) for batch in batches))
        progress = Progress(count, report)
        faults: Faults = []
        encoded = 0
        if count:
            encode = open_encoder()
            for store, own in itertools.groupby((one for one in batches if one.missing), key=lambda one: one.store):
                store.remove_damaged()
                with store.writer(write_rows) as writer:
                    work = _Work(writer, progress, faults)
                    self._encode_all(map(everything.read, own), encode, device, batch_size, work)
                    encoded += work.encoded
            if faults and not encoded and count == total:
                listed = "\n".join(f"  - {path}: {reason}" for path, reason in faults[:NAMED_FAULTS])
                raise DataError(f"none of the {len(faults)} pictures can be encoded:\n{listed}")
        progress.finish()
        return CacheReport(total, total - count, encoded, progress.seconds, tuple(faults))

    def encode(self, samples: Sequence[Sample], encode: Encode, device: torch.device) -> list[torch.Tensor]:
        """Encodes pictures together; DataError if one cannot be."""
        try:
            with quiet_decoding():
                pixels = [torch.from_numpy(self._load(sample)) for sample in samples]
        except UnusableImageError as error:
            raise DataError(f"a picture of dataset {samples[0].dataset_id} cannot be used: {error}") from error
        latents, finite = self._encode_pixels(list(zip(samples, pixels, strict=True)), encode, device)
        if not all(finite):
            path = samples[finite.index(False)].path
            raise DataError(f"{path}: the VAE gave infinite or undefined numbers in {self._dtype_name}.")
        return list(latents)

    def put(self, sample: Sample, latent: torch.Tensor, writer: Writer) -> None:
        """Hands an encoded picture to the writer."""
        origin = latent_origin(sample, self._vae_of(sample.dataset_id), self._dtype_name)
        writer.put(self._key(sample), {LATENT: latent}, origin)

    def key(self, sample: Sample) -> str:
        """What the latent of a sample is kept under."""
        return self._key(sample)

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
        latents, finite = self._encode_pixels(loaded, encode, device)
        for (sample, _), latent, is_finite in zip(loaded, latents, finite, strict=True):
            if is_finite:
                self.put(sample, latent, work.writer)
                work.encoded += 1
            else:
                work.faults.append((sample.path, f"the VAE gave infinite or undefined numbers in {self._dtype_name}"))
        work.writer.end_batch()

    def _encode_pixels(
        self, loaded: Sequence[tuple[Sample, torch.Tensor]], encode: Encode, device: torch.device
    ) -> tuple[list[torch.Tensor], list[bool]]:
        pixels = torch.stack([one for _, one in loaded])
        # A ControlNet sees pixels: these are kept as they are.
        is_kept = torch.tensor([self._vae_of(sample.dataset_id) == PIXELS for sample, _ in loaded])
        with torch.inference_mode():
            # channels_last: convolutions on a CPU are 1.7 times faster with it.
            layout = torch.channels_last if pixels.ndim == 4 else torch.preserve_format
            moved = pixels.to(device, self._dtype, memory_format=layout)
            seen = moved[~is_kept] if is_kept.any() else moved
            encoded = iter(encode(seen).to("cpu", self._dtype) if len(seen) else ())
            rows = [row.to(self._dtype) if kept else next(encoded) for row, kept in zip(pixels, is_kept, strict=True)]
            return rows, [bool(torch.isfinite(row).all()) for row in rows]

    def _load_ahead(
        self, batches: Iterator[list[Sample]], pool: ThreadPoolExecutor, ahead: int
    ) -> Iterator[list[Loading]]:
        waiting: deque[list[Loading]] = deque()
        for batch in batches:
            waiting.append([(sample, pool.submit(self._load, sample)) for sample in batch])
            # Films are large: one is decoded while another is encoded.
            while len(waiting) > (1 if isinstance(batch[0].plan, FilmPlan) else ahead):
                yield waiting.popleft()
        yield from waiting

    def _make_key(self, sample: Sample) -> str:
        return latent_key(sample.content, sample.plan, self._vae_of(sample.dataset_id), self._dtype_name)


def _load(sample: Sample, read: ReadSample | None) -> Pixels:
    plan = sample.plan
    return load_frames(sample, plan, read) if isinstance(plan, FilmPlan) else load_pixels(sample, read)
