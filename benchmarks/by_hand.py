"""The yardstick at real sizes: the same training by hand with the same libraries, nothing that is not training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from benchmarks.sizes import Model
    from flowtuner.options import TrainingConfig

TARGETS = {
    "pixart_sigma": ["to_q", "to_k", "to_v", "to_out.0"],
    "flux": ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"],
}


class HandLoop:
    """A training loop for one model, its data and its optimizer."""

    def __init__(self, model: Model, config: TrainingConfig, device: torch.device, batch: int, compiled: str) -> None:
        is_full = config.model_type == "full"
        self.device, self.batch, self.family = device, batch, model.family
        self.model = model.build(torch.float32 if is_full else torch.bfloat16, device)
        self.model.enable_gradient_checkpointing()
        if "int8" in config.base_model_precision:
            _quantize(self.model)
        if not is_full:
            self._inject_lora(config.lora_rank)
        self.parameters = [one for one in self.model.parameters() if one.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, fused=True)
        self.latents = model.draw_latents(batch, device, torch.bfloat16)
        self.text = model.draw_text(batch, device, torch.bfloat16)
        betas = torch.linspace(0.0001, 0.02, 1000, device=device)
        self.signal = (1 - betas).cumprod(0)
        self.model.train()
        if compiled == "whole":
            self.model.compile()
        if compiled == "blocks":
            for block in [*self.model.transformer_blocks, *getattr(self.model, "single_transformer_blocks", ())]:
                block.compile()

    def steps(self, count: int) -> None:
        """Makes updates."""
        for _ in range(count):
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                loss = self._pixart_loss() if self.family == "pixart_sigma" else self._flux_loss()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def _pixart_loss(self) -> torch.Tensor:
        clean, noise = self.latents.float(), torch.randn_like(self.latents, dtype=torch.float32)
        times = torch.randint(0, 1000, (self.batch,), device=self.device)
        share = self.signal[times].view(-1, 1, 1, 1)
        answer = self.model(
            (share.sqrt() * clean + (1 - share).sqrt() * noise).bfloat16(),
            encoder_hidden_states=self.text["prompt_embeds"],
            encoder_attention_mask=self.text["prompt_attention_mask"],
            timestep=times,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample
        return functional.mse_loss(answer[:, : clean.shape[1]].float(), noise)

    def _flux_loss(self) -> torch.Tensor:
        clean, noise = self.latents.float(), torch.randn_like(self.latents, dtype=torch.float32)
        sigma = torch.sigmoid(torch.randn(self.batch, device=self.device))
        mixed = (1 - sigma.view(-1, 1, 1, 1)) * clean + sigma.view(-1, 1, 1, 1) * noise
        side = clean.shape[-1] // 2
        rows, columns = torch.meshgrid(*[torch.arange(side, device=self.device)] * 2, indexing="ij")
        ids = torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).float()
        embeds = self.text["prompt_embeds"]
        answer = self.model(
            hidden_states=_pack(mixed).bfloat16(),
            encoder_hidden_states=embeds,
            pooled_projections=self.text["pooled_prompt_embeds"],
            timestep=sigma,
            img_ids=ids,
            txt_ids=torch.zeros(embeds.shape[1], 3, device=self.device),
            guidance=torch.ones(self.batch, device=self.device, dtype=torch.bfloat16),
        ).sample
        return functional.mse_loss(answer.float(), _pack(noise - clean))

    def _inject_lora(self, rank: int) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS[self.family]), self.model)
        for name, parameter in self.model.named_parameters():
            is_adapter = ".default." in name
            parameter.requires_grad_(is_adapter)
            if is_adapter:
                parameter.data = parameter.data.float()


def _pack(latents: torch.Tensor) -> torch.Tensor:
    count, channels, height, width = latents.shape
    cut = latents.reshape(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(count, height * width // 4, channels * 4)


def _quantize(model: Any) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(model, Int8WeightOnlyConfig())
