"""Options about validation: what is rendered, when, and by whom."""

from pathlib import Path
from typing import Literal

from flowtuner.options.fields import Section, option


class ValidationOptions(Section):
    """What is rendered while training."""

    validation_disable: bool = option(False, "Renders nothing.")
    validation_prompt: str | None = option(None, "Prompt to render.", env=["VALIDATION_PROMPT"])
    validation_prompt_library: bool | str = option(
        False, "Renders a library of prompts: true, or its name.", values={"default": "true"}
    )
    user_prompt_library: Path | None = option(None, "JSON file of names and prompts to render.", path="existing")
    validation_negative_prompt: str = option(
        "blurry, cropped, ugly", "What pictures should not show.", env=["VALIDATION_NEGATIVE_PROMPT"]
    )
    validation_disable_unconditional: bool = option(False, "Leaves out the picture without a prompt.")
    validation_guidance: float = option(7.5, "Guidance scale.", ge=0, env=["VALIDATION_GUIDANCE"])
    validation_guidance_real: float = option(
        1.0, "Real guidance scale of distilled models.", ge=0, env=["VALIDATION_GUIDANCE_REAL"]
    )
    validation_guidance_rescale: float = option(
        0.0, "Rescales guidance.", ge=0, le=1, accepted=True, env=["VALIDATION_GUIDANCE_RESCALE"]
    )
    validation_no_cfg_until_timestep: int = option(
        2, "Steps without real guidance.", ge=0, accepted=True, env=["VALIDATION_NO_CFG_UNTIL_TIMESTEP"]
    )
    validation_resolution: str = option(
        "256",
        "Edge, WIDTHxHEIGHT, or several with commas; below 128: megapixels.",
        env=["VALIDATION_RESOLUTION"],
    )
    validation_num_inference_steps: int = option(30, "Denoising steps.", ge=1, env=["VALIDATION_NUM_INFERENCE_STEPS"])
    validation_seed: int | None = option(None, "Seed of the pictures; empty: the run's.", ge=0, env=["VALIDATION_SEED"])
    validation_seed_source: Literal["cpu", "gpu"] = option("cpu", "Where noise is drawn.", accepted=True)
    validation_randomize: bool = option(False, "Another seed each time.")
    validation_step_interval: int | None = option(
        100,
        "Steps between validations; 0: only at the end.",
        ge=0,
        aliases=["validation_steps"],
        env=["VALIDATION_STEP_INTERVAL", "VALIDATION_STEPS"],
    )
    validation_epoch_interval: int | None = option(
        None, "Epochs between validations.", ge=1, env=["VALIDATION_EPOCH_INTERVAL"]
    )
    validate_after_step: int = option(0, "First step that may be validated.", ge=0, accepted=True)
    validate_after_epoch: int = option(0, "First epoch that may be validated.", ge=0, accepted=True)
    validation_on_startup: bool = option(False, "Renders before the first step too.", accepted=True)
    disable_benchmark: bool = option(
        False, "Does not render the untrained model for comparison.", accepted=True, env=["DISABLE_BENCHMARK"]
    )
    num_validation_images: int = option(1, "Pictures per prompt.", ge=1)
    validation_method: Literal["simpletuner-local", "external-script"] = option(
        "simpletuner-local", "Who renders.", env=["VALIDATION_METHOD"]
    )
    validation_external_script: str | None = option(
        None,
        "Command that renders; may contain {local_checkpoint_path} and others.",
        env=["VALIDATION_EXTERNAL_SCRIPT"],
    )
    validation_external_background: bool = option(
        False, "Does not wait for it.", env=["VALIDATION_EXTERNAL_BACKGROUND"]
    )
    validation_preview: bool = option(False, "Shows pictures while they are rendered.", accepted=True)
    validation_preview_steps: int = option(1, "Denoising steps between them.", ge=1, accepted=True)
    validation_using_datasets: bool = option(False, "Renders from pictures of the datasets.", accepted=True)
    validation_adapter_path: str | None = option(None, "Another adapter to render with.", path="source", accepted=True)
    validation_adapter_config: str | None = option(None, "Several adapters to render with.", accepted=True)
    validation_noise_scheduler: str | None = option(None, "Sampler for rendering.", accepted=True)
    validation_torch_compile: bool = option(
        False, "Renders with the model as dynamo_backend compiled it; each new size compiles once more."
    )
    validation_lycoris_strength: float = option(1.0, "Strength of LyCORIS while rendering.", ge=0, accepted=True)
    validation_num_video_frames: int | None = option(
        None, "Frames of a rendered film; empty: as many as the family usually draws.", ge=1
    )
    validation_stitch_input_location: Literal["left", "right"] = option(
        "left", "Where the input stands beside its result.", accepted=True
    )
    evaluation_type: Literal["none", "clip"] = option("none", "Score of rendered pictures.", built=["none"])
    eval_dataset_id: str | None = option(None, "Dataset used for evaluation.", accepted=True)
    eval_steps_interval: int | None = option(None, "Steps between evaluations.", ge=1, accepted=True)
    eval_epoch_interval: float | None = option(None, "Epochs between evaluations.", gt=0, accepted=True)
    eval_timesteps: int = option(28, "Timesteps of an evaluation.", ge=1, accepted=True)
    eval_dataset_pooling: bool = option(False, "Scores all evaluation datasets together.", accepted=True)
    num_eval_images: int = option(4, "Pictures of an evaluation.", ge=1, accepted=True)
    pretrained_evaluation_model_name_or_path: str = option(
        "openai/clip-vit-large-patch14-336", "Model that scores.", accepted=True
    )
