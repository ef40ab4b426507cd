"""Options about the model: which one, from where, and in what precision its weights stand."""

from typing import Literal

from flowtuner.options.fields import Section, option

Family = Literal[
    "pixart_sigma", "sd1x", "sd2x", "sdxl", "sd3", "flux", "flux2", "z_image", "z_image_omni", "qwen_image", "hidream",
    "sana", "chroma", "auraflow", "kolors", "lumina2", "omnigen", "cosmos", "cosmos3", "stable_cascade", "deepfloyd",
    "kandinsky5_image", "longcat_image", "krea2", "ideogram", "anima", "ernie", "boogu_image", "mageflow", "zlab_i1",
    "wan", "wan_s2v", "ltxvideo", "ltxvideo2", "hunyuanvideo", "sanavideo", "kandinsky5_video", "longcat_video",
    "minimaxh3", "infinitetalk", "ace_step", "heartmula", "minimaxmusic",
]  # fmt: skip

Precision = Literal[
    "no_change", "bf16", "fp16", "fp32", "int8-quanto", "int4-quanto", "int2-quanto", "fp8-quanto", "fp8uz-quanto",
    "int8-torchao", "int8dq-torchao", "int8dq-int4-torchao", "int4-torchao", "fp8-torchao", "fp8wo-torchao",
    "fp8-int4-torchao", "fp8-native", "fp8-transformerengine", "nf4-bnb", "int8-sdnq", "int6-sdnq", "int5-sdnq",
    "uint8-sdnq", "uint5-sdnq", "uint4-sdnq", "uint3-sdnq", "uint2-sdnq", "int16-sdnq", "uint16-sdnq", "fp16-sdnq",
    "fp8-sdnq",
]  # fmt: skip

UNQUANTISED = ("no_change", "bf16", "fp16", "fp32")
QUANTISED = (
    "int8-quanto", "int4-quanto", "int2-quanto", "fp8-quanto", "fp8uz-quanto", "int8-torchao", "fp8wo-torchao",
    "int4-torchao", "fp8-torchao",
)  # fmt: skip
"""Those that the engine drives."""


class ModelOptions(Section):
    """Which model is trained."""

    model_family: Family = option(
        ...,
        "The architecture to train.",
        values={"pixart": "pixart_sigma", "cosmos2image": "cosmos", "ideogram4": "ideogram"},
        env=["MODEL_FAMILY"],
    )
    model_flavour: str | None = option(
        None, "The variant of the family; chooses the default weights.", aliases=["model_flavor"]
    )
    model_type: Literal["full", "lora"] = option(
        ..., "`full` trains every weight, `lora` a small adapter on top of frozen ones.", env=["MODEL_TYPE"]
    )
    pretrained_model_name_or_path: str | None = option(
        None,
        "A folder in diffusers layout or a Hub id such as owner/name; overrides the flavour's default.",
        path="source",
        env=["MODEL_NAME"],
    )
    revision: str | None = option(None, "Branch, tag or commit of the model on the Hub.")
    variant: str | None = option(None, "Weights variant on the Hub, such as fp16.")
    pretrained_vae_model_name_or_path: str | None = option(None, "Another VAE than the model's own.", path="source")
    pretrained_transformer_model_name_or_path: str | None = option(
        None, "Another transformer than the model's own.", path="source"
    )
    pretrained_transformer_subfolder: str | None = option(None, "Folder of the transformer inside its repository.")
    pretrained_unet_model_name_or_path: str | None = option(None, "Another U-Net than the model's own.", path="source")
    pretrained_unet_subfolder: str | None = option(None, "Folder of the U-Net inside its repository.")
    pretrained_t5_model_name_or_path: str | None = option(
        None, "Another T5 text encoder than the model's own.", path="source"
    )
    prediction_type: Literal["epsilon", "v_prediction", "sample", "flow_matching", "autoregressive"] | None = option(
        None, "What the model predicts; empty: what its family predicts.", accepted=True
    )
    base_model_precision: Precision = option(
        "no_change",
        "Precision of the frozen base weights; `bf16`, `fp16` and `fp32` mean that dtype without quantisation.",
        values={"none": "no_change", "float16": "fp16", "float32": "fp32", "bfloat16": "bf16"},
        built=[*UNQUANTISED, *QUANTISED],
        env=["BASE_MODEL_PRECISION"],
    )
    text_encoder_1_precision: Precision = option(
        "no_change", "Precision of the first text encoder.", built=[*UNQUANTISED, *QUANTISED]
    )
    text_encoder_2_precision: Precision = option(
        "no_change", "Precision of the second text encoder.", built=[*UNQUANTISED, *QUANTISED]
    )
    text_encoder_3_precision: Precision = option(
        "no_change", "Precision of the third text encoder.", built=[*UNQUANTISED, *QUANTISED]
    )
    text_encoder_4_precision: Precision = option(
        "no_change", "Precision of the fourth text encoder.", built=[*UNQUANTISED, *QUANTISED]
    )
    base_model_default_dtype: Literal["bf16", "fp32"] = option(
        "bf16",
        "Dtype of everything that is not quantised when the base is; "
        "bf16 counts only with an optimizer that loses nothing in it.",
    )
    quantize_via: Literal["cpu", "accelerator", "pipeline"] = option(
        "accelerator",
        "Where the base is quantised: on the CPU, on the accelerator, or layer by layer on its way there (`pipeline`).",
        env=["QUANTIZE_VIA"],
    )
    quantization_config: dict[str, object] | str | None = option(
        None, "Quantisation per component: JSON or a path to it; only for LoRA.", accepted=True
    )
    quantize_activations: bool = option(False, "Quantises activations too (torchao).", accepted=True)
    clip_skip: int | None = option(
        None, "CLIP layers left out at the end, for families whose text is CLIP's (sd1x, sdxl).", ge=0
    )
    tokenizer_max_length: int | None = option(
        None, "Longest prompt in tokens; empty: the family's.", ge=1, aliases=["maximum_caption_length"]
    )
    vae_dtype: Literal["default", "fp32", "fp16", "bf16"] = option(
        "default", "Dtype in which the VAE works.", built=["default"]
    )
    vae_enable_tiling: bool = option(False, "Encodes and decodes in tiles: less memory, slower.")
    vae_enable_slicing: bool = option(False, "Encodes and decodes one picture at a time: less memory.")
    controlnet: bool = option(
        False, "Trains a ControlNet beside the frozen model, on pairs of conditioning_type controlnet (sd1x, sdxl)."
    )
    controlnet_model_name_or_path: str | None = option(
        None, "ControlNet weights to start from; empty: a copy of the model.", path="source"
    )
    control: bool = option(False, "Trains with control pictures as extra channels.", accepted=True)
    train_text_encoder: bool = option(False, "Trains the text encoder too.", accepted=True)
    text_encoder_lr: float | None = option(None, "Learning rate of the text encoder.", gt=0, accepted=True)
    fuse_qkv_projections: bool = option(False, "Fuses the attention projections.", accepted=True)
    attention_mechanism: str = option("diffusers", "Implementation of attention.", built=["diffusers"])
    enable_xformers_memory_efficient_attention: bool = option(
        False, "Attention by xformers.", accepted=True, env=["USE_XFORMERS"]
    )
    t5_padding: Literal["zero", "unmodified"] = option("unmodified", "What padded T5 tokens hold.", accepted=True)
