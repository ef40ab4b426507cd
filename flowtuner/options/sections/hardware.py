"""Options about the machine: precision of arithmetic, memory, processes."""

from typing import Any, Literal

from flowtuner.options.fields import Section, option


class HardwareOptions(Section):
    """What the machine does with a step."""

    mixed_precision: Literal["no", "fp16", "bf16", "fp8"] | None = option(
        None,
        "Precision of arithmetic; empty: bf16 on an accelerator, no on a CPU.",
        values={"fp32": "no"},
        built=["no", "bf16", "fp16"],
        env=["MIXED_PRECISION"],
    )
    disable_tf32: bool = option(False, "Does not use TF32.", accepted=True)
    allow_tf32: bool = option(True, "Uses TF32 where there is any.", env=["ALLOW_TF32"], accepted=True)
    torch_num_threads: int | None = option(
        None, "CPU threads; empty: as many as the process may use.", ge=1, env=["TORCH_NUM_THREADS"]
    )
    num_processes: int = option(
        1,
        "Processes that train together, one per GPU; each takes `train_batch_size` samples of a micro batch.",
        ge=1,
        env=["TRAINING_NUM_PROCESSES"],
    )
    num_machines: int = option(1, "Machines.", ge=1, accepted=True, env=["TRAINING_NUM_MACHINES"])
    accelerate_config: str | None = option(
        None,
        "Settings file of accelerate; its num_processes counts where the option is left alone.",
        env=["ACCELERATE_CONFIG_PATH"],
    )
    accelerate_extra_args: str | None = option(
        None, "More arguments for accelerate.", accepted=True, env=["ACCELERATE_EXTRA_ARGS"]
    )
    dynamo_backend: Literal["no", "inductor", "aot_eager", "eager", "cudagraphs"] = option(
        "no",
        "Compiles the model for training with this backend of torch.compile; `inductor` makes it faster.",
        env=["TRAINING_DYNAMO_BACKEND", "TRAINER_DYNAMO_BACKEND"],
    )
    dynamo_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None = option(
        None, "Mode of torch.compile; empty: its default."
    )
    dynamo_use_regional_compilation: bool | None = option(
        None,
        "Compiles one block of each kind instead of the whole model: the first step comes sooner. Empty: on a GPU.",
    )
    deepspeed_config: dict[str, Any] | str | None = option(None, "DeepSpeed settings.", accepted=True)
    fsdp_enable: bool = option(
        False, "Cuts weights, gradients and the optimizer's state up over all processes (FSDP2); full and LoRA."
    )
    fsdp_version: int = option(2, "Version of FSDP; 2 is built.", ge=1, le=2)
    context_parallel_size: int | None = option(None, "GPUs that share one sample.", ge=1, accepted=True)
    enable_group_offload: bool = option(
        False,
        "Keeps the frozen weights of a standard LoRA's base in main memory; each layer has its own while it computes.",
    )
    ramtorch: bool = option(False, "Keeps weights in main memory (CUDA only).", accepted=True)
    offload_during_startup: bool = option(False, "Moves text encoders away while latents are cached.", accepted=True)
    fully_unload_text_encoder: bool = option(
        False, "Drops text encoders after caching; Flowtuner always does.", accepted=True
    )
    keep_vae_loaded: bool = option(False, "Keeps the VAE after caching.", accepted=True)
    enable_chunked_feed_forward: bool = option(False, "Computes feed-forward layers in chunks.", accepted=True)
    feed_forward_chunk_size: int | None = option(None, "Size of a chunk.", ge=1, accepted=True)
    accelerator_cache_clear_interval: int | None = option(
        None, "Steps between clearings of the GPU's cache.", ge=1, accepted=True
    )
    i_know_what_i_am_doing: bool = option(False, "Silences SimpleTuner's safety questions.")
