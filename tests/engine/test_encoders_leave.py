"""What has done its work leaves memory: encoders go before the model comes, the VAE before training."""

import gc
import threading

from diffusers import AutoencoderKL, PixArtTransformer2DModel
from transformers import T5EncoderModel

from flowtuner.engine.run import RunSpec
from flowtuner.engine.session import Session
from flowtuner.options import load


def alive(kind: type) -> int:
    """How many of these are in memory now; whoever asks has not cleaned up for the engine."""
    return sum(issubclass(type(thing), kind) for thing in gc.get_objects())


def test_encoders_leave_memory_once_their_caches_are_full(tmp_path, tiny_run):
    gc.collect()
    before = {kind: alive(kind) for kind in (T5EncoderModel, AutoencoderKL, PixArtTransformer2DModel)}
    seen = {T5EncoderModel: 0, AutoencoderKL: 0}

    def watch(type, data):
        for kind, most in seen.items():
            seen[kind] = max(most, alive(kind) - before[kind])

    spec = RunSpec("memory", load(values=tiny_run, environ={}), tmp_path / "output")
    session = Session(spec, watch, threading.Event())
    session.cache_text()
    assert alive(T5EncoderModel) == before[T5EncoderModel]
    session.cache_latents()
    assert alive(AutoencoderKL) == before[AutoencoderKL]
    assert seen == {T5EncoderModel: 1, AutoencoderKL: 1}
    session.prepare(None)
    session.train(1)
    assert alive(PixArtTransformer2DModel) == before[PixArtTransformer2DModel] + 1
    assert alive(T5EncoderModel) + alive(AutoencoderKL) == before[T5EncoderModel] + before[AutoencoderKL]
    session.close()
