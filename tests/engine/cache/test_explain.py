"""Why a picture or a prompt hit or missed, and the keys and fingerprints behind it."""

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import pytest
import torch

from flowtuner.engine.cache.explain import CacheIdentity, explain
from flowtuner.engine.cache.keys import fingerprint, latent_key, text_key
from flowtuner.engine.cache.latents import LatentCache
from flowtuner.engine.cache.text import TextCache
from flowtuner.engine.data.sample import Plan, Quarantined, Scan
from flowtuner.errors import ModelError


@pytest.fixture
def filled(store, make_samples, words):
    samples = make_samples(3)
    text = TextCache(store, "encoder", 77, torch.float32)
    captions = [caption for sample in samples for caption in sample.captions]
    text.encode_missing(captions, words, batch_size=4, write_rows=128, report=lambda done, total: None)
    latents = LatentCache({"d": store}, "vae", torch.float32)
    latents.encode_missing(
        samples,
        lambda: lambda pixels: pixels,
        device=torch.device("cpu"),
        batch_size=1,
        write_rows=128,
        report=lambda done, total: None,
    )
    identity = CacheIdentity({"d": store.root}, store.root, "vae", "float32", "encoder", "float32", 77)
    return Scan(tuple(samples)), identity


def test_hit_names_shard_and_row(filled):
    scan, identity = filled
    latent, text = explain(scan.samples[1].path, scan, identity)
    assert latent.is_hit and latent.kind == "latent" and latent.row == 1 and latent.shard.exists()
    assert text.is_hit and text.kind == "text" and text.subject == "caption 1"
    assert str(latent).startswith("latent hit") and "row 1" in str(latent)


def test_prompt_is_explained_without_a_picture(filled):
    scan, identity = filled
    assert explain("caption 2", scan, identity)[0].is_hit
    assert explain("never seen", scan, identity)[0].reason == "never cached"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"vae": "new"}, "the VAE's weights changed"),
        ({"vae_dtype": "bfloat16"}, "the number format changed: float32 -> bfloat16"),
        ({"vae": "new", "vae_dtype": "bfloat16"}, "the VAE's weights changed; the number format changed"),
    ],
)
def test_miss_of_a_latent_names_what_changed(filled, change, reason):
    scan, identity = filled
    answer = explain(scan.samples[0].path, scan, replace(identity, **change))[0]
    assert not answer.is_hit and answer.reason.startswith(reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"encoder": "new"}, "the text encoder or its tokenizer changed"),
        ({"max_tokens": 300}, "the longest prompt changed: 77 -> 300 tokens"),
        ({"text_dtype": "bfloat16"}, "the number format changed: float32 -> bfloat16"),
    ],
)
def test_miss_of_a_prompt_names_what_changed(filled, change, reason):
    scan, identity = filled
    assert explain("caption 0", scan, replace(identity, **change))[0].reason == reason


def test_changed_picture_and_changed_plan(filled):
    scan, identity = filled
    sample = scan.samples[0]
    changed = Scan((replace(sample, content="f" * 64),))
    assert explain(sample.path, changed, identity)[0].reason == "its bytes changed"
    cropped = Scan((replace(sample, plan=Plan(1, (16, 8), (4, 0, 8, 8))),))
    reason = explain(sample.path, cropped, identity)[0].reason
    assert reason == "its plan changed: resize 16x8, crop 16x8+0+0 -> resize 16x8, crop 8x8+4+0"


def test_copy_of_a_cached_picture_hits(filled):
    scan, identity = filled
    copy = replace(scan.samples[0], path="/elsewhere/copy.png")
    answer = explain(copy.path, Scan((copy,)), identity)[0]
    assert answer.is_hit and answer.reason == f"cached, with the same bytes as {scan.samples[0].path}"


def test_pictures_that_are_no_samples(filled, tmp_path):
    scan, identity = filled
    scan = Scan(scan.samples, (Quarantined(str(tmp_path / "bad.png"), "it is damaged: truncated"),))
    assert (
        explain(str(tmp_path / "bad.png"), scan, identity)[0].reason == "quarantined because it is damaged: truncated"
    )
    (tmp_path / "other.png").touch()
    assert explain(str(tmp_path / "other.png"), scan, identity)[0].reason == "it is in no enabled dataset"
    assert explain(str(tmp_path / "none.png"), scan, identity)[0].reason == "there is no such file"


def test_damaged_shards_are_mentioned(filled):
    scan, identity = filled
    for shard in identity.text_root.glob("*.safetensors"):
        shard.write_bytes(b"broken")
    assert "never cached; 2 damaged files" in explain("caption 0", scan, identity)[0].reason


def test_keys_are_pinned():
    # Changing a key's recipe throws away everybody's cache: do it on purpose only.
    assert text_key("a dog", "encoder", 77, "float32") == TEXT_KEY
    assert latent_key("content", Plan(1, (16, 8), (0, 0, 16, 8)), "vae", "float32") == LATENT_KEY


TEXT_KEY = "8a8c265db28f5333e5fdfaebf965b880ebda41e3fc50cba5b5bb0365f7d4f266"
LATENT_KEY = "a4de94e256a955d1e37eac418fffbfb5706a7c2897bbd6e1e3a47088db77d060"


def write_component(folder):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("about")
    while time.time_ns() - (folder / "README.md").stat().st_ctime_ns < 25_000_000:
        os.sched_yield()
    return folder


def test_fingerprint_follows_bytes_not_names(tmp_path):
    index = tmp_path / "index"
    folder = write_component(tmp_path / "vae")
    first = fingerprint(folder, index_dir=index)
    assert fingerprint(folder, index_dir=index) == first
    (tmp_path / "other").mkdir()
    assert fingerprint(write_component(tmp_path / "other" / "vae"), index_dir=index) == first
    (folder / "README.md").write_text("something else")
    assert fingerprint(folder, index_dir=index) == first
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")
    assert fingerprint(folder, index_dir=index) != first


def test_fingerprint_is_remembered(tmp_path):
    folder = write_component(tmp_path / "vae")
    first = fingerprint(folder, index_dir=tmp_path / "index")
    with closing(sqlite3.connect(tmp_path / "index" / "fingerprints.sqlite")) as memo, memo:
        memo.execute("UPDATE facts SET value = '\"remembered\"'")
    assert fingerprint(folder, index_dir=tmp_path / "index") != first


def test_fingerprint_of_nothing(tmp_path):
    with pytest.raises(ModelError, match="holds no weights"):
        fingerprint(tmp_path / "nowhere", index_dir=tmp_path)


def test_explaining_needs_no_torch():
    program = "import sys, flowtuner.engine.cache.explain, flowtuner.engine.data.scan; sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0
