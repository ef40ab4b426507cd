"""Parts from elsewhere: another autoencoder, transformer or T5 than the model's own, trained with and saved."""

import pytest
import torch
from diffusers import DiffusionPipeline

from flowtuner.engine.cache.identity import recall_identity
from flowtuner.engine.families import open_family
from flowtuner.errors import ModelError

CPU = torch.device("cpu")
PixArt = open_family("pixart_sigma")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return PixArt.tiny(tmp_path_factory.mktemp("other") / "model", seed=9)


def load(family, part):
    if part == "text_encoder":
        return family.load_text_encoder(torch.float32, CPU)._model
    return family.load_vae(torch.float32, CPU).module if part == "vae" else family.load_model(torch.float32, CPU)


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("kind", "part"), [("vae", "vae"), ("transformer", "transformer"), ("t5", "text_encoder")])
def test_one_part_comes_from_elsewhere_and_the_others_do_not(tiny_model, other, configure, kind, part, inside):
    place = other / part if inside else other
    family = PixArt(tiny_model, configure(**{f"pretrained_{kind}_model_name_or_path": str(place)}))
    own, theirs = PixArt(tiny_model, configure()), PixArt(other, configure())
    for each in ("vae", "transformer", "text_encoder"):
        assert same(load(family, each), load(theirs if each == part else own, each))


def test_a_subfolder_of_another_name(tiny_model, other, configure, tmp_path):
    (tmp_path / "prior").symlink_to(other / "transformer")
    config = configure(
        pretrained_transformer_model_name_or_path=str(tmp_path), pretrained_transformer_subfolder="prior"
    )
    theirs = PixArt(other, configure()).load_model(torch.float32, CPU)
    assert same(PixArt(tiny_model, config).load_model(torch.float32, CPU), theirs)


def test_what_is_not_there_is_named(tiny_model, configure, tmp_path):
    family = PixArt(tiny_model, configure(pretrained_vae_model_name_or_path=str(tmp_path)))
    with pytest.raises(ModelError, match=rf"vae of {tmp_path} cannot be loaded"):
        family.load_vae(torch.float32, CPU)


def test_the_saved_pipeline_holds_what_was_trained_with(tiny_model, other, configure, tmp_path):
    family = PixArt(tiny_model, configure(pretrained_vae_model_name_or_path=str(other)))
    family.save_pipeline(family.load_model(torch.float32, CPU), tmp_path / "saved")
    saved = DiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert same(saved.vae, load(PixArt(other, configure()), "vae"))
    assert same(saved.text_encoder, load(PixArt(tiny_model, configure()), "text_encoder"))


def test_another_autoencoder_is_another_cache(start, tiny_run, other):
    plain = start(tiny_run, "plain").session._library._identity
    run = start(tiny_run | {"pretrained_vae_model_name_or_path": str(other)}, "other")
    replaced = run.session._library._identity
    assert plain.vae != replaced.vae
    assert plain.encoder == replaced.encoder
    assert recall_identity(run.session._spec.loaded).vae == replaced.vae
    run.session.train(1)
