"""`flowtuner cache verify`: every row read and compared, what is damaged named and removed on demand."""

import json

import pytest
import torch

from flowtuner.cli.main import main
from flowtuner.engine.cache.shards import list_shards
from flowtuner.engine.cache.store import Store


@pytest.fixture
def options(tiny_run, tmp_path):
    with Store(tmp_path / "cache" / "vae").writer() as writer:
        for number in range(3):
            writer.put(f"{number:064d}", {"latent": torch.full((4, 2, 2), float(number))}, {})
    return [f"--{name}={json.dumps(value) if isinstance(value, bool) else value}" for name, value in tiny_run.items()]


def test_a_flipped_bit_is_named_and_removed(options, tmp_path, capsys):
    assert main(["cache", "verify", *options]) == 0
    assert "0 damaged" in capsys.readouterr().out
    (first, *_) = list_shards(tmp_path / "cache" / "vae")[0]
    data = bytearray(first.path.read_bytes())
    data[-1] ^= 4
    first.path.write_bytes(data)
    assert main(["cache", "verify", *options]) == 1
    assert f"{first.path}: the bytes of 1 rows changed" in capsys.readouterr().out
    assert main(["cache", "verify", "--remove", "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == [str(first.path)]
    assert not first.path.exists()
    assert main(["cache", "verify", *options]) == 0
