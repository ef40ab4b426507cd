"""The store: what is written is read, whatever happens to files and processes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from flowtuner.engine.cache.store import Store
from flowtuner.errors import DataError

ORIGIN = {"kind": "test"}


def fill(store, count, rows=256, start=0):
    with store.writer(rows) as writer:
        for number in range(start, start + count):
            writer.put(f"key{number}", {"x": torch.full((2, 3), float(number))}, ORIGIN)
            writer.end_batch()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_rows_come_back_bit_by_bit(tmp_path, dtype):
    store = Store(tmp_path)
    rows = {
        f"key{n}": {"x": torch.randn(n % 3 + 1, 5).to(dtype), "mask": torch.rand(n % 3 + 1) > 0.5, "n": torch.tensor(n)}
        for n in range(20)
    }
    with store.writer(7) as writer:
        for key, tensors in rows.items():
            writer.put(key, tensors, ORIGIN)
            writer.end_batch()
    for opened in (store, Store(tmp_path)):
        assert len(opened) == 20
        for key, tensors in rows.items():
            read = opened.read(key)
            assert read.keys() == tensors.keys()
            assert all(read[name].dtype == t.dtype and torch.equal(read[name], t) for name, t in tensors.items())


def test_shards_hold_at_most_so_many_rows(tmp_path):
    fill(Store(tmp_path), 600, rows=1000)
    assert len(list(tmp_path.glob("*.safetensors"))) == 5
    fill(Store(tmp_path / "small"), 600, rows=100)
    assert len(list((tmp_path / "small").glob("*.safetensors"))) == 12


def test_read_is_a_view_of_the_map(store):
    fill(store, 2)
    assert store.read("key1")["x"].untyped_storage().data_ptr() == store.read("key0")["x"].untyped_storage().data_ptr()


def test_missing_keeps_order_and_drops_doubles(store):
    fill(store, 2)
    assert store.missing(["z", "key0", "a", "z", "key1"]) == ["z", "a"]
    with pytest.raises(DataError, match="no row"):
        store.read("z")


def test_error_in_the_middle_keeps_what_was_encoded(store):
    with pytest.raises(ZeroDivisionError), store.writer(100) as writer:
        writer.put("a", {"x": torch.zeros(1)}, ORIGIN)
        1 / 0
    assert "a" in Store(store.root)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data + b"\0",
        lambda data: b"",
        lambda data: b"x" * 100,
        lambda data: (2).to_bytes(8, "little") + b"{}",
        lambda data: (10**12).to_bytes(8, "little") + data[8:],
        lambda data: data[:8] + b"[" * (len(data) - 8),
    ],
)
def test_damaged_shard_is_passed_over_removed_and_reported(tmp_path, damage, caplog):
    fill(Store(tmp_path), 4, rows=4)
    victim = sorted(tmp_path.glob("*.safetensors"))[0]
    victim.write_bytes(damage(victim.read_bytes()))
    store = Store(tmp_path)
    assert store.missing([f"key{n}" for n in range(4)]) == ["key0", "key1"]
    assert [damage.path for damage in store.damaged] == [victim] and all(damage.reason for damage in store.damaged)
    assert [damage.path for damage in store.remove_damaged()] == [victim]
    assert not victim.exists() and not store.damaged and victim.name in caplog.text


def test_files_of_other_programs_and_versions_are_left_alone(tmp_path):
    from safetensors.torch import save_file

    fill(Store(tmp_path), 4, rows=4)
    newer = sorted(tmp_path.glob("*.safetensors"))[0]
    newer.write_bytes(newer.read_bytes().replace(b"flowtuner-cache-1", b"flowtuner-cache-9"))
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "folder.safetensors").mkdir()
    store = Store(tmp_path)
    assert len(store) == 2 and len(store.damaged) == 3
    assert store.remove_damaged() == []
    assert (tmp_path / "model.safetensors").exists() and newer.exists()


def test_same_key_from_two_writers_is_harmless(tmp_path):
    one, two = Store(tmp_path), Store(tmp_path)
    fill(one, 3)
    fill(two, 5)
    store = Store(tmp_path)
    assert len(store) == 5 and torch.equal(store.read("key2")["x"], torch.full((2, 3), 2.0))
    assert len(one) == 3
    one.refresh()
    assert len(one) == 5


@pytest.mark.parametrize("count", [1, 100])
def test_unwritable_store_is_a_clear_error(tmp_path, count):
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file")
    with pytest.raises(DataError, match="cannot be written"):
        fill(store, count, rows=8)


def test_rows_of_another_memory_layout(store):
    row = torch.randn(1, 4, 6, 5).to(memory_format=torch.channels_last)[0]
    with store.writer() as writer:
        writer.put("a", {"x": row}, ORIGIN)
        writer.put("b", {"x": row + 1}, ORIGIN)
    assert torch.equal(store.read("a")["x"], row) and store.read("b")["x"].is_contiguous()


WRITER = """
import sys, torch
from pathlib import Path
from flowtuner.engine.cache.store import Store
store = Store(Path(sys.argv[1]))
with store.writer(8) as writer:
    for number in range(10**9):
        writer.put(f"{sys.argv[2]}{number}", {"x": torch.full((64,), float(number))}, {})
        writer.end_batch()
        print(number + 1, flush=True)
"""


def start_writer(root, name):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WRITER, str(root), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def kill_after(process, lines):
    for _ in range(lines):
        done = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.stdout.close()
    process.wait()
    return int(rest[-1]) if rest else done


def test_kill_loses_at_most_the_batch_under_way_even_of_two_writers(tmp_path):
    writers = [start_writer(tmp_path, name) for name in "ab"]
    done = [kill_after(process, 30 + 41 * number) - 8 for number, process in enumerate(writers)]
    store = Store(tmp_path)
    assert not store.damaged
    for name, count in zip("ab", done, strict=True):
        assert not store.missing(f"{name}{number}" for number in range(count))
        assert torch.equal(store.read(f"{name}{count - 1}")["x"], torch.full((64,), float(count - 1)))


def test_leftovers_of_killed_writers_go_after_a_day(tmp_path):
    old, young = tmp_path / ".rows-1.safetensors.1.part", tmp_path / ".rows-2.safetensors.2.part"
    old.touch()
    young.touch()
    os.utime(old, (time.time() - 100_000,) * 2)
    fill(Store(tmp_path), 1)
    assert not old.exists() and young.exists()


def test_ten_thousand_rows_open_in_half_a_second(tmp_path):
    store = Store(tmp_path)
    origin = {"kind": "latent", "path": "/some/folder/picture.png", "content": "0" * 64, "vae": "0" * 64}
    with store.writer(128) as writer:
        for number in range(10_000):
            writer.put(f"{number:064d}", {"latent": torch.zeros(4, 2, 2)}, origin)
            writer.end_batch()
    started = time.monotonic()
    assert len(Store(tmp_path)) == 10_000
    assert time.monotonic() - started < 0.5


def test_header_is_plain_safetensors(tmp_path):
    from safetensors import safe_open

    fill(Store(tmp_path), 3)
    with safe_open(next(tmp_path.glob("*.safetensors")), "pt") as shard:
        assert json.loads(shard.metadata()["keys"]) == [["key0", "key1", "key2"]]
        assert shard.get_tensor("0.x").shape == (3, 2, 3)
