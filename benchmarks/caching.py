"""How fast the caches fill against the encoders alone, and how soon a run with full caches goes on."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.ground import build_ground, configure, open_session, write_pictures
from benchmarks.harness import Row, compare, stopwatch
from flowtuner.engine.cache.latents import LatentCache
from flowtuner.engine.cache.store import Store
from flowtuner.engine.cache.text import TextCache
from flowtuner.engine.data.images import load_pixels
from flowtuner.engine.data.scan import scan_datasets
from flowtuner.engine.families import open_family

PICTURES = 100
EDGE = 128
PROMPTS = 500
BATCH = 4
TEXT_BATCH = 32
TEXT_WIDTH = 512
UNCHANGED = 10_000
UNCHANGED_EDGE = 16
CPU, FLOAT = torch.device("cpu"), torch.float32


def measure_latents(ground: Path, rounds: int) -> Row:
    """Pictures per second from files to shards over those of the autoencoder alone."""
    folder = ground / "large"
    write_pictures(folder / "pictures", PICTURES, EDGE)
    loaded = configure(ground, "latents", pictures=folder / "pictures", resolution=EDGE)
    scan = scan_datasets(loaded.datasets, loaded.config, index_dir=folder, report=lambda done, total: None)
    vae = open_family("pixart_sigma")(ground / "model", loaded.config).load_vae(FLOAT, CPU)
    vae.module.to(memory_format=torch.channels_last)
    pixels = torch.stack([torch.from_numpy(load_pixels(sample)) for sample in scan.samples])
    batches = [batch.contiguous(memory_format=torch.channels_last) for batch in pixels.split(BATCH)]
    fresh = (folder / f"cache-{number}" for number in itertools.count())

    def alone() -> None:
        with torch.inference_mode():
            for batch in batches:
                vae.module.encode(batch)

    def cached() -> None:
        store = Store(next(fresh))
        LatentCache({sample.dataset_id: store for sample in scan.samples}, "vae", FLOAT).encode_missing(
            scan.samples,
            lambda: vae.encode,
            device=CPU,
            batch_size=BATCH,
            write_rows=128,
            report=lambda done, total: None,
        )

    rate = 1 / compare(cached, alone, rounds)
    return Row("latent cache: pictures/s over the autoencoder's own rate", rate, at_least=0.85)


def measure_text(ground: Path, rounds: int) -> Row:
    """Prompts per second from text to shards over those of the encoder alone."""
    from transformers import T5EncoderModel, T5Tokenizer

    prompts = list(itertools.islice(_write_prompts(), PROMPTS))
    # The tiniest encoder takes 0.1 ms for a prompt, no more than any bookkeeping; this one is wider, and still a
    # thousandth of PixArt's T5.
    folder = open_family("pixart_sigma").tiny(ground / "text" / "model", text_width=TEXT_WIDTH)
    config = configure(ground, "text").config
    encoder = open_family("pixart_sigma")(folder, config).load_text_encoder(FLOAT, CPU)
    tokenizer = T5Tokenizer.from_pretrained(folder, subfolder="tokenizer")
    model = T5EncoderModel.from_pretrained(folder, subfolder="text_encoder").eval()
    ordered = sorted(prompts, key=len)
    fresh = (ground / "text" / f"cache-{number}" for number in itertools.count())

    def alone() -> None:
        with torch.inference_mode():
            for start in range(0, len(ordered), TEXT_BATCH):
                tokens = tokenizer(ordered[start : start + TEXT_BATCH], padding="longest", return_tensors="pt")
                model(tokens.input_ids, attention_mask=tokens.attention_mask)

    def cached() -> None:
        TextCache(Store(next(fresh)), "encoder", 300, FLOAT).encode_missing(
            prompts, lambda: encoder, batch_size=TEXT_BATCH, write_rows=128, report=lambda done, total: None
        )

    rate = 1 / compare(cached, alone, rounds)
    return Row("text cache: prompts/s over the encoder's own rate", rate, at_least=0.85)


def measure_restart(folder: Path) -> Row:
    """Seconds until a run whose 10,000 pictures are all cached has looked at them and could train."""
    ground = build_ground(folder)
    write_pictures(folder / "many", UNCHANGED, UNCHANGED_EDGE)
    options: dict[str, Any] = {"pictures": folder / "many", "resolution": UNCHANGED_EDGE, "vae_batch_size": 64}
    loaded = configure(ground, "many", **options)
    open_session(loaded, prepares=False)
    gc.collect()  # the first session is gone, and with it its lock on the output folder
    seconds = stopwatch(lambda: open_session(loaded, prepares=False))
    return Row(f"restart with {UNCHANGED:,} unchanged pictures, all cached", seconds, unit="s", at_most=5)


def _write_prompts() -> Iterator[str]:
    words = ("a red circle", "on a black background", "in the small picture", "over a dark scene", "with white shape")
    for number in itertools.count():
        yield " ".join([*words[: 1 + number % len(words)], str(number)])
