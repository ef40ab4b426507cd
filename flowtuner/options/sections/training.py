"""Options about the run: how long, in what batches, with what loss and noise."""

from pathlib import Path
from typing import Literal

from flowtuner.options.fields import Section, option


class TrainingOptions(Section):
    """How long a run takes and what a step is."""

    output_dir: Path = option(
        ..., "Where checkpoints, pictures, logs and the trained model go.", path="created", env=["OUTPUT_DIR"]
    )
    max_train_steps: int = option(
        0,
        "Optimizer steps of the whole run; 0: as many as num_train_epochs takes.",
        ge=0,
        le=100_000_000,
        env=["MAX_NUM_STEPS"],
    )
    num_train_epochs: int = option(
        1,
        "Passes over the data; 0, or absent while max_train_steps is given: as many as the steps take.",
        ge=0,
        le=1_000_000,
        env=["NUM_EPOCHS"],
    )
    strict_epoch_limit: bool = option(
        False, "Stops at the end of the last epoch even if steps are left.", negated=["ignore_final_epochs"]
    )
    train_batch_size: int = option(4, "Pictures per forward and backward pass.", ge=1, env=["TRAIN_BATCH_SIZE"])
    gradient_accumulation_steps: int = option(
        1, "Passes per optimizer step.", ge=1, env=["GRADIENT_ACCUMULATION_STEPS"]
    )
    gradient_checkpointing: bool = option(
        True, "Recomputes activations: less memory, slower.", env=["USE_GRADIENT_CHECKPOINTING"]
    )
    gradient_checkpointing_interval: int | None = option(None, "Recomputes every n-th block only.", ge=1, accepted=True)
    gradient_checkpointing_backend: str = option("torch", "Who recomputes.", built=["torch"])
    seed: int | None = option(
        None, "Makes a run repeatable; empty or -1: another seed each time.", ge=-1, env=["TRAINING_SEED", "SEED"]
    )
    seed_for_each_device: bool = option(True, "Each device draws its own noise.", accepted=True)
    loss_type: Literal["l2", "huber", "smooth_l1"] = option("l2", "How an error is measured.")
    huber_schedule: Literal["snr", "exponential", "constant"] = option("snr", "Schedule of huber_c.", accepted=True)
    huber_c: float = option(0.1, "Where the Huber loss turns linear.", gt=0)
    snr_gamma: float | None = option(None, "Min-SNR weighting; 5 is usual.", ge=0)
    snr_weight: float = option(1.0, "Scale of the SNR weighting.", accepted=True)
    use_soft_min_snr: bool = option(False, "Soft Min-SNR weighting.", accepted=True)
    soft_min_snr_sigma_data: float | None = option(None, "Data deviation for soft Min-SNR.", gt=0, accepted=True)
    noise_offset: float = option(0.1, "Strength of offset noise.", ge=0, accepted=True)
    noise_offset_probability: float = option(0.25, "Share of steps with offset noise.", ge=0, le=1, accepted=True)
    offset_noise: bool = option(False, "Adds offset noise.", accepted=True)
    input_perturbation: float = option(0.0, "Extra noise on the input only.", ge=0, accepted=True)
    input_perturbation_steps: int = option(0, "Steps with extra noise; 0: all.", ge=0, accepted=True)
    timestep_bias_strategy: Literal["none", "earlier", "later", "range"] = option(
        "none", "Which timesteps are drawn more often.", built=["none"]
    )
    timestep_bias_multiplier: float = option(1.0, "How much more often.", ge=0, accepted=True)
    timestep_bias_begin: int = option(0, "First timestep of the range.", ge=0, accepted=True)
    timestep_bias_end: int = option(1000, "Last timestep of the range.", ge=0, accepted=True)
    timestep_bias_portion: float = option(0.25, "Share of the timesteps that is favoured.", ge=0, le=1, accepted=True)
    disable_segmented_timestep_sampling: bool = option(
        False, "Draws each timestep alone, not spread over the batch.", accepted=True
    )
    training_scheduler_timestep_spacing: Literal["leading", "linspace", "trailing"] = option(
        "trailing", "Spacing of the training schedule.", accepted=True, env=["TRAINING_SCHEDULER_TIMESTEP_SPACING"]
    )
    inference_scheduler_timestep_spacing: Literal["leading", "linspace", "trailing"] = option(
        "trailing", "Spacing when rendering.", accepted=True, env=["INFERENCE_SCHEDULER_TIMESTEP_SPACING"]
    )
    rescale_betas_zero_snr: bool = option(False, "Rescales the schedule to end at zero SNR.", accepted=True)
    flow_schedule_shift: float | None = option(3.0, "Shift of a flow-matching schedule.", ge=0)
    flow_schedule_auto_shift: bool = option(False, "Chooses the shift by resolution.", accepted=True)
    flow_sigmoid_scale: float = option(1.0, "Scale of the logit-normal timesteps.", gt=0)
    flow_use_uniform_schedule: bool = option(False, "Draws flow timesteps uniformly.")
    flow_use_beta_schedule: bool = option(False, "Draws flow timesteps from a beta distribution.")
    flow_beta_schedule_alpha: float = option(2.0, "Alpha of that distribution.", gt=0)
    flow_beta_schedule_beta: float = option(2.0, "Beta of that distribution.", gt=0)
    flux_fast_schedule: bool = option(False, "Flux's short schedule.", accepted=True)
    flux_guidance_mode: Literal["constant", "random-range"] = option("constant", "Guidance fed to Flux.")
    flux_guidance_value: float = option(1.0, "Constant guidance fed to Flux.", env=["FLUX_GUIDANCE_VALUE"])
    flux_guidance_min: float = option(0.0, "Lower end of random guidance.")
    flux_guidance_max: float = option(4.0, "Upper end of random guidance.")
    flux_attention_masked_training: bool = option(False, "Masks padded tokens in Flux.", accepted=True)
    tread_config: dict[str, object] | str | None = option(None, "Token routing (TREAD).", accepted=True)
    distillation_method: str | None = option(None, "Distillation.", accepted=True)
    distillation_config: dict[str, object] | str | None = option(None, "Its settings.", accepted=True)
    layer_freeze_strategy: Literal["none", "bitfit"] = option("none", "Which layers stay as they are.", built=["none"])
    freeze_encoder: bool = option(True, "Leaves text encoders as they are.", accepted=True)
    use_ema: bool = option(False, "Keeps a moving average of the weights.", env=["USE_EMA"])
    ema_decay: float = option(0.995, "How slowly the average moves.", gt=0, lt=1)
    ema_device: Literal["accelerator", "cpu"] = option("cpu", "Where the average stands between updates.")
    ema_cpu_only: bool = option(False, "Keeps the average on the CPU always.")
    ema_update_interval: int | None = option(None, "Optimizer steps between updates; empty: every step.", ge=1)
    ema_foreach_disable: bool = option(False, "Updates tensor by tensor.")
    ema_validation: Literal["none", "ema_only", "comparison"] = option(
        "ema_only",
        "Which weights validation uses while use_ema is on.",
        values={"ema": "ema_only"},
        built=["ema_only"],
    )
