"""The yardstick: the same training by hand in plain torch and diffusers, with everything in memory.

`python -m benchmarks.bare GROUND KIND` runs it as a script of its own and prints when its first step was done.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

STEPS_OF_SCRIPT = 30
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]


class Loop(ABC):
    """A training loop without anything that is not training."""

    def __init__(self, model: Any, kind: str, batch: int) -> None:
        import torch

        self.model, self.batch = model, batch
        self.parameters = choose_parameters(model, kind)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)

    @abstractmethod
    def loss(self) -> Any:
        """The error on a batch that is drawn for it."""

    def steps(self, count: int) -> None:
        """Makes updates."""
        for _ in range(count):
            self.step()

    def step(self) -> None:
        """One update."""
        import torch

        self.loss().backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class BareLoop(Loop):
    """PixArt, on pictures and captions that are encoded before."""

    def __init__(self, ground: Path, kind: str, batch: int, pad_to: int | None = None) -> None:
        import torch
        from diffusers import DDPMScheduler, PixArtTransformer2DModel

        torch.manual_seed(0)
        super().__init__(
            PixArtTransformer2DModel.from_pretrained(ground / "model", subfolder="transformer"), kind, batch
        )
        self.alphas = DDPMScheduler.from_pretrained(ground / "model", subfolder="scheduler").alphas_cumprod
        self.latents = encode_pictures(ground)
        self.text, self.mask = encode_captions(ground, pad_to)

    def loss(self) -> Any:
        """How well the noise is told from the picture."""
        import torch

        rows = torch.randperm(len(self.latents))[: self.batch]
        clean, noise = self.latents[rows], torch.randn(self.batch, *self.latents.shape[1:])
        times = torch.randint(0, 1000, (self.batch,))
        signal = self.alphas[times].view(-1, 1, 1, 1)
        longest = int(self.mask[rows].sum(1).max()) if self.mask.shape[1] < 300 else 300
        predicted = self.model(
            signal.sqrt() * clean + (1 - signal).sqrt() * noise,
            encoder_hidden_states=self.text[rows, :longest],
            encoder_attention_mask=self.mask[rows, :longest],
            timestep=times,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample[:, : clean.shape[1]]
        return torch.nn.functional.mse_loss(predicted, noise)


def choose_parameters(model: Any, kind: str) -> list[Any]:
    """Puts an adapter into or beside a model, over int8 weights if they are asked for; what is to be trained."""
    model.train()
    if kind == "full":
        return list(model.parameters())
    model.requires_grad_(False)
    if kind == "lycoris":
        return _apply_lycoris(model)
    if kind == "int8 lora":
        _quantise(model)
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(r=8, lora_alpha=8, target_modules=TARGETS), model)
    return [parameter for name, parameter in model.named_parameters() if ".default." in name]


def _quantise(model: Any) -> None:
    import torch
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(model, Int8WeightOnlyConfig(), lambda layer, name: type(layer) is torch.nn.Linear and "blocks." in name)


def _apply_lycoris(model: Any) -> list[Any]:
    from lycoris import LycorisNetwork, create_lycoris

    names = {type(module).__name__ for module in model.modules()}
    layers = {name: {"factor": 16} for name in sorted(names) if name.endswith("Attention")}
    layers["FeedForward"] = {"factor": 8}
    LycorisNetwork.apply_preset({"target_module": list(layers), "module_algo_map": layers})
    network = create_lycoris(model, 1.0, algo="lokr", full_matrix=True, linear_dim=4, linear_alpha=1, factor=16)
    network.apply_to()
    return list(network.parameters())


def read_pictures(ground: Path, folder: str = "pictures") -> Any:
    """All pictures of a folder as one tensor in [-1, 1]."""
    import numpy as np
    import torch
    from PIL import Image

    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in sorted((ground / folder).glob("*.png"))]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def encode_pictures(ground: Path) -> Any:
    """The latents of all pictures."""
    import torch
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(ground / "model", subfolder="vae").eval()
    vae.to(memory_format=torch.channels_last)
    with torch.no_grad():
        modes = [vae.encode(batch).latent_dist.mode() for batch in read_pictures(ground).split(4)]
    return torch.cat(modes) * vae.config.scaling_factor


def read_captions(ground: Path) -> list[str]:
    """All captions, in the order of the pictures."""
    return [path.read_text() for path in sorted((ground / "pictures").glob("*.txt"))]


def encode_captions(ground: Path, pad_to: int | None) -> tuple[Any, Any]:
    """The text states and masks of all captions, padded to the longest or to a given length."""
    import torch
    from transformers import T5EncoderModel, T5Tokenizer

    tokenizer = T5Tokenizer.from_pretrained(ground / "model", subfolder="tokenizer")
    encoder = T5EncoderModel.from_pretrained(ground / "model", subfolder="text_encoder").eval()
    padding = {"padding": "max_length", "max_length": pad_to} if pad_to else {"padding": "longest"}
    tokens = tokenizer(read_captions(ground), return_tensors="pt", truncation=True, **padding)
    with torch.no_grad():
        states = [encoder(ids, attention_mask=mask)[0] for ids, mask in _parts(tokens, 8)]
    return torch.cat(states), tokens.attention_mask


def _parts(tokens: Any, size: int) -> Any:
    return zip(tokens.input_ids.split(size), tokens.attention_mask.split(size), strict=True)


def main(ground: Path, kind: str) -> None:
    """Trains a few steps and reports when the first was done and how much memory it took."""
    started = float(os.environ["BENCH_STARTED"])
    import torch

    torch.set_num_threads(1)
    loop = BareLoop(ground, kind, batch=8)
    loop.step()
    first_step_s = time.time() - started
    loop.steps(STEPS_OF_SCRIPT)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"first_step_s": first_step_s, "peak_kib": peak_kib}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
