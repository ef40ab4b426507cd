"""Caches that fill while training, caches that are not kept, batches made ahead: the same run in all of them."""

import json
from pathlib import Path

import pytest
import torch

from flowtuner.durable import sha256_of
from flowtuner.engine.cache.shards import list_shards

torch.set_num_threads(1)

ON_DEMAND = {"vae_cache_ondemand": True, "text_cache_ondemand": True}
PREFETCH = {"dataloader_prefetch": True, "dataloader_prefetch_qlen": 3}
SHORT = {"max_train_steps": 4, "caption_dropout_probability": 0.2}


def add_set(values: dict, name: str = "second", **keys) -> dict:
    """Adds a second set over the same pictures."""
    path = Path(values["data_backend_config"])
    first, *others = json.loads(path.read_text())
    path.write_text(json.dumps([first, first | {"id": name} | keys, *others]))
    return values


def rows_in(root: Path) -> dict[str, bytes]:
    """Every cached row's bytes, by key."""
    rows = {}
    for shard in list_shards(root)[0]:
        data = shard.path.read_bytes()
        for group, tensors in enumerate(shard.tensors):
            for row, key in enumerate(shard.keys[group]):
                places = [place for _, place in sorted(tensors.items())]
                starts = [place.offset + row * place.row_bytes for place in places]
                rows[key] = b"".join(data[at : at + p.row_bytes] for at, p in zip(starts, places, strict=True))
    return rows


def move_caches(values: dict, root: Path) -> dict:
    """The same run with caches of its own."""
    path = root / "dataloader.json"
    root.mkdir()
    entries = json.loads(Path(values["data_backend_config"]).read_text())
    for entry in entries:
        for key in ("cache_dir_vae", "cache_dir"):
            if key in entry:
                entry[key] = str(root / key)
    path.write_text(json.dumps(entries))
    return values | {"data_backend_config": str(path)}


@pytest.mark.parametrize("mode", [ON_DEMAND, ON_DEMAND | PREFETCH], ids=["on demand", "on demand and ahead"])
def test_caches_filled_while_training_hold_the_same_bytes(start, tiny_run, tmp_path, mode):
    filled = start(move_caches(tiny_run | SHORT, tmp_path / "filled"), "filled")
    filled.session.train(4)
    lazy = start(move_caches(tiny_run | SHORT | mode, tmp_path / "lazy"), "lazy")
    assert not rows_in(tmp_path / "lazy" / "cache_dir_vae")
    lazy.session.train(4)
    assert lazy.release() == filled.release()
    lazy.session._library.close()
    for kind in ("cache_dir_vae", "cache_dir"):
        made, wanted = rows_in(tmp_path / "lazy" / kind), rows_in(tmp_path / "filled" / kind)
        assert made and made.items() <= wanted.items()


@pytest.mark.parametrize(
    "mode",
    [
        PREFETCH,
        {"vae_cache_disable": True, "text_cache_disable": True},
        pytest.param(ON_DEMAND | PREFETCH, marks=pytest.mark.slow),
    ],
    ids=["ahead", "kept nowhere", "on demand and ahead"],
)
def test_a_resumed_run_equals_an_uninterrupted_one(start, tiny_run, mode):
    values = add_set(tiny_run | SHORT | mode, start_step=2, end_step=3)
    straight = start(values, "straight")
    straight.session.train(4)
    run = start(values)
    run.session.train(2)
    run.session.save_checkpoint()
    run.session.train(3)
    again = start(values)
    assert again.position["step"] == 2
    again.session.train(4)
    assert again.release() == straight.release()


def test_batches_made_ahead_are_the_same(start, tiny_run):
    plain, ahead = start(tiny_run, "plain").session, start(tiny_run | PREFETCH, "ahead").session
    for number in (0, 1, 2, 7, 8, 1):
        one, other = plain._trainer.feed.batch(number), ahead._trainer.feed.batch(number)
        assert torch.equal(one.latents, other.latents)
        assert all(torch.equal(one.text[name], other.text[name]) for name in one.text)


def test_renewed_crops_are_trained_on_and_kept_nowhere(start, tiny_run, tmp_path):
    values = move_caches(tiny_run, tmp_path / "renewed")
    path = Path(values["data_backend_config"])
    first, *others = json.loads(path.read_text())
    first |= {"vae_cache_clear_each_epoch": True, "crop": True, "resolution": 16, "crop_style": "random"}
    path.write_text(json.dumps([first, *others]))
    run = start(values)
    feed = run.session._trainer.feed
    size = feed.sampler.micro_batches_per_epoch
    seen = [
        {tuple(feed.batch(n).latents.flatten()[:8].tolist()) for n in range(e * size, (e + 1) * size)} for e in (0, 1)
    ]
    assert not seen[0] & seen[1]
    assert not rows_in(tmp_path / "renewed" / "cache_dir_vae")


def test_a_flipped_bit_is_found_when_the_row_is_read(start, tiny_run, tmp_path):
    from flowtuner.errors import DataError

    run = start(tiny_run)
    (shard, *_) = list_shards(tmp_path / "cache" / "vae")[0]
    before = sha256_of(shard.path)
    run.die()
    data = bytearray(shard.path.read_bytes())
    data[-1] ^= 1
    shard.path.write_bytes(data)
    assert sha256_of(shard.path) != before
    again = start(tiny_run)
    with pytest.raises(DataError, match="cache verify --remove"):
        for number in range(8):
            again.session._trainer.feed.batch(number)
