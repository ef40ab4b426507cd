"""Where caches stand: what the options say, most particular first."""

from pathlib import Path

import pytest

from flowtuner.engine.cache.places import index_root, latent_root, text_root
from flowtuner.options import load


@pytest.fixture
def places(tiny_run):
    def find(keep_entries=False, **values):
        entries = [{"id": "a", "type": "local", "instance_data_dir": str(Path(tiny_run["output_dir"]).parent)}]
        if keep_entries:
            entries[0]["cache_dir_vae"] = "/own/{model_family}/{id}"
        loaded = load(values=tiny_run | {"data_backend_config": entries} | values, environ={})
        return latent_root(loaded.datasets[0], loaded.config), text_root(loaded.datasets, loaded.config), loaded.config

    return find


def test_by_default_they_stand_in_the_output_folder(places, tiny_run):
    latents, text, config = places()
    root = Path(tiny_run["output_dir"]) / "cache"
    assert (latents, text, index_root(config)) == (root / "latents", root / "text", root / "index")


def test_cache_dir_moves_all_of_them(places, tmp_path):
    root = tmp_path / "shared"
    latents, text, config = places(cache_dir=str(root))
    assert (latents, text, index_root(config)) == (root / "latents", root / "text", root / "index")


def test_a_data_set_s_own_folder_wins_and_its_placeholders_are_filled(places, tmp_path):
    latents, _, _ = places(keep_entries=True, cache_dir=str(tmp_path), cache_dir_vae=str(tmp_path / "vae"))
    assert latents == Path("/own/pixart_sigma/a")
