"""Options about the optimizer and its learning rate."""

from typing import Any, Literal, get_args

from flowtuner.options.fields import Section, option

Optimizer = Literal[
    "adamw_bf16", "torch-adamw", "torch-adam", "torch-sgd", "torch-adamax", "torch-nadam", "torch-radam",
    "torch-rmsprop", "torch-adagrad", "torch-adadelta", "torch-adafactor", "torch-asgd", "torch-rprop", "torch-muon",
    "adamw_schedulefree", "adamw_schedulefree+aggressive", "adamw_schedulefree+no_kahan", "optimi-stableadamw",
    "optimi-adamw", "optimi-lion", "optimi-radam", "optimi-ranger", "optimi-adan", "optimi-adam", "optimi-sgd", "soap",
    "muon", "prodigy", "sdnq-adamw", "sdnq-adamw+no_quant", "sdnq-adafactor", "sdnq-came", "sdnq-lion", "sdnq-muon",
    "sdnq-muon+quantized_matmul", "ao-adamw8bit", "ao-adamw4bit", "ao-adamfp8", "ao-adamwfp8", "bnb-adagrad",
    "bnb-adagrad8bit", "bnb-adam", "bnb-adam8bit", "bnb-adamw", "bnb-adamw8bit", "bnb-adamw-paged",
    "bnb-adamw8bit-paged", "bnb-lion", "bnb-lion8bit", "bnb-lion-paged", "bnb-lion8bit-paged", "bnb-ademamix",
    "bnb-ademamix8bit", "bnb-ademamix-paged", "bnb-ademamix8bit-paged",
]  # fmt: skip

BUILT = tuple(name for name in get_args(Optimizer) if name not in ("soap", "muon") and not name.startswith("sdnq-"))


class OptimizerOptions(Section):
    """Who moves the weights, and how far."""

    optimizer: Optimizer = option(
        "adamw_bf16",
        "The optimizer. adamw_bf16 and, in bf16 runs, optimi-* keep bfloat16 weights and lose no update; "
        "optimi-*, prodigy and adamw_schedulefree come with `flowtuner[optimizers]`, ao-* with `flowtuner[torchao]`, "
        "bnb-* with bitsandbytes.",
        values={"adamw": "torch-adamw", "adam": "torch-adam"},
        removed={"dadaptation": "adamw_schedulefree", "adafactor": "optimi-stableadamw", "adamw8bit": "optimi-adamw"},
        built=BUILT,
        env=["OPTIMIZER"],
    )
    optimizer_config: dict[str, Any] | str | None = option(None, "Settings for it: `key=value,key=value`.")
    optimizer_beta1: float | None = option(None, "First beta; needs optimizer_beta2 too.", ge=0, lt=1)
    optimizer_beta2: float | None = option(None, "Second beta; needs optimizer_beta1 too.", ge=0, lt=1)
    adam_beta1: float = option(0.9, "First beta of Adam under DeepSpeed.", ge=0, lt=1, accepted=True)
    adam_beta2: float = option(0.999, "Second beta of Adam under DeepSpeed.", ge=0, lt=1, accepted=True)
    adam_weight_decay: float = option(1e-2, "Weight decay of Adam under DeepSpeed.", ge=0, accepted=True)
    adam_epsilon: float = option(1e-8, "Epsilon of Adam under DeepSpeed.", gt=0, accepted=True)
    prodigy_steps: int | None = option(None, "Steps in which Prodigy adapts.", ge=0, accepted=True)
    optimizer_cpu_offload_method: str = option("none", "Keeps optimizer state on the CPU.", built=["none"])
    optimizer_offload_gradients: bool = option(False, "Moves gradients to the CPU.", accepted=True)
    optimizer_release_gradients: bool = option(False, "Frees gradients early (optimi).", accepted=True)
    fuse_optimizer: bool = option(True, "Uses fused kernels where there are any.")
    gradient_precision: Literal["unmodified", "fp32"] = option(
        "unmodified", "Precision of accumulated gradients.", accepted=True
    )
    set_grads_to_none: bool = option(True, "Frees gradients after a step.", accepted=True)
    learning_rate: float = option(4e-7, "Peak learning rate.", gt=0, env=["LEARNING_RATE"])
    lr_scheduler: Literal[
        "linear", "sine", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"
    ] = option(
        "constant_with_warmup",
        "Course of the learning rate; `cosine` is a linear warmup, then a cosine decay to lr_end.",
        values={"cosine_with_warmup": "cosine"},
        env=["LR_SCHEDULE"],
    )
    lr_warmup_steps: int = option(0, "Steps in which the rate rises to its peak.", ge=0, env=["LR_WARMUP_STEPS"])
    lr_end: float = option(4e-7, "Rate at the end of a decay.", ge=0, env=["LR_END"])
    lr_power: float = option(0.8, "Power of the polynomial decay.", gt=0)
    lr_num_cycles: int = option(1, "Cycles of cosine_with_restarts and sine.", ge=1)
    lr_scale: bool = option(False, "Multiplies the rate by batch size, accumulation and devices.", accepted=True)
    lr_scale_sqrt: bool = option(False, "Multiplies it by the square root of that.", accepted=True)
    max_grad_norm: float = option(2.0, "Bound on gradients; 0: none.", ge=0)
    grad_clip_method: Literal["value", "norm"] = option(
        "value", "Bounds each gradient value, or the norm of all of them."
    )
