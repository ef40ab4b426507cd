"""Options about adapters: LoRA and LyCORIS."""

from typing import Any, Literal

from flowtuner.options.fields import Section, option


class AdapterOptions(Section):
    """What a LoRA looks like."""

    lora_type: Literal["standard", "lycoris"] = option(
        "standard", "`standard` is PEFT's LoRA, `lycoris` the LyCORIS library's algorithms.",
        env=["LORA_TYPE"],
    )  # fmt: skip
    lora_rank: int = option(16, "Dimension of the update matrices.", ge=1, le=4096)
    lora_alpha: float | None = option(None, "Strength of the update; empty: the rank.", gt=0)
    lora_dropout: float = option(0.1, "Share of adapter activations dropped while training.", ge=0, lt=1)
    lora_init_type: Literal["default", "gaussian", "loftq", "olora", "pissa"] = option(
        "default", "How a new adapter starts.", values={"true": "default"}
    )
    lora_target_modules: list[str] | None = option(
        None, "Names of the layers that get an adapter; empty: the family's.", aliases=["peft_lora_target_modules"]
    )
    lora_format: Literal["diffusers", "comfyui"] = option(
        "diffusers", "Names of the tensors in the adapter file: diffusers' own, or `diffusion_model.*` with alphas."
    )
    init_lora: str | None = option(None, "An adapter file to start from.", path="source")
    use_dora: bool = option(False, "Weight-decomposed LoRA.", env=["USE_DORA"])
    peft_lora_mode: Literal["standard", "singlora"] = option("standard", "PEFT's mode.", built=["standard"])
    singlora_ramp_up_steps: int = option(0, "Steps in which SingLoRA ramps up.", ge=0, accepted=True)
    slider_lora_target: bool = option(False, "Targets the layers that sliders use.", accepted=True)
    flux_lora_target: Literal["all", "all+ffs", "context", "context+ffs", "ai-toolkit", "tiny", "nano"] = option(
        "all", "Which layers of Flux get an adapter, unless lora_target_modules names them."
    )
    lycoris_config: dict[str, Any] | str | None = option(
        "config/lycoris_config.json",
        "LyCORIS settings: JSON or a path to it; without the default file, LoKr with factor 16.",
        env=["LYCORIS_CONFIG"],
    )
    init_lokr_norm: float | None = option(
        None, "Starts LoKr with values this much smaller than the layer's own weights; 1e-3 is usual.", ge=0
    )
    modelspec_comment: str | list[str] | None = option(None, "A comment in the adapter file.")
