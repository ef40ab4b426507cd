"""The yardstick for edits: Kontext trained by hand on pairs of pictures, everything in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from benchmarks.bare import Loop, read_captions, read_pictures

TEXT_TOKENS = 32


class BareKontext(Loop):
    """Kontext, on pairs and captions that are encoded before."""

    def __init__(self, ground: Path, kind: str, batch: int) -> None:
        from diffusers import FluxKontextPipeline

        torch.manual_seed(0)
        pipeline = FluxKontextPipeline.from_pretrained(ground / "kontext")
        super().__init__(pipeline.transformer, kind, batch)
        with torch.no_grad():
            self.latents = _encode(pipeline.vae, read_pictures(ground))
            self.references = _pack(_encode(pipeline.vae, read_pictures(ground, "references")))
            self.text, self.pooled, self.text_ids = pipeline.encode_prompt(
                read_captions(ground), None, max_sequence_length=TEXT_TOKENS
            )
        side = self.latents.shape[-1] // 2
        self.ids = torch.cat([_place(side, 0), _place(side, 1)])

    def loss(self) -> torch.Tensor:
        """How well the direction from the picture to the noise is told."""
        rows = torch.randperm(len(self.latents))[: self.batch]
        clean, noise = self.latents[rows], torch.randn(self.batch, *self.latents.shape[1:])
        sigma = torch.sigmoid(torch.randn(self.batch))
        share = sigma.view(-1, 1, 1, 1)
        tokens = _pack((1 - share) * clean + share * noise)
        predicted = self.model(
            hidden_states=torch.cat([tokens, self.references[rows]], 1),
            encoder_hidden_states=self.text[rows],
            pooled_projections=self.pooled[rows],
            timestep=sigma,
            img_ids=self.ids,
            txt_ids=self.text_ids,
            guidance=torch.ones(self.batch),
            return_dict=False,
        )[0][:, : tokens.shape[1]]
        return functional.mse_loss(predicted, _pack(noise - clean))


def _encode(vae: Any, pictures: torch.Tensor) -> torch.Tensor:
    modes = torch.cat([vae.encode(part).latent_dist.mode() for part in pictures.split(4)])
    return (modes - vae.config.shift_factor) * vae.config.scaling_factor


def _pack(latents: torch.Tensor) -> torch.Tensor:
    count, channels, height, width = latents.shape
    cut = latents.reshape(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(count, height * width // 4, channels * 4)


def _place(side: int, picture: int) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([torch.full_like(rows, picture), rows, columns], -1).reshape(-1, 3).float()
