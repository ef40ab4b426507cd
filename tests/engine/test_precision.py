"""The table of dtypes, row by row."""

import pytest
import torch

from flowtuner.engine.precision import Precision, resolve_precision
from flowtuner.errors import ConfigError

FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "options", "expected"),
    [
        (CPU, {}, Precision(FP32, FP32, None)),
        (GPU, {}, Precision(FP32, FP32, BF16)),
        (GPU, {"mixed_precision": "no"}, Precision(FP32, FP32, None)),
        (CPU, {"mixed_precision": "bf16"}, Precision(FP32, FP32, BF16)),
        (CPU, {"base_model_precision": "bf16"}, Precision(FP32, FP32, BF16)),
        (GPU, {"base_model_precision": "bf16", "mixed_precision": "no"}, Precision(FP32, FP32, None)),
        (CPU, {"optimizer": "adamw_bf16"}, Precision(BF16, BF16, None)),
        (GPU, {"optimizer": "adamw_bf16", "mixed_precision": "bf16"}, Precision(BF16, BF16, None)),
        (CPU, {"optimizer": "optimi-lion"}, Precision(FP32, FP32, None)),
        (GPU, {"optimizer": "optimi-lion"}, Precision(BF16, BF16, None)),
        (GPU, {"optimizer": "optimi-lion", "base_model_precision": "fp32"}, Precision(FP32, FP32, BF16)),
        (GPU, {"optimizer": "optimi-lion", "model_type": "lora"}, Precision(BF16, FP32, BF16)),
        (CPU, {"model_type": "lora"}, Precision(FP32, FP32, None)),
        (GPU, {"model_type": "lora"}, Precision(BF16, FP32, BF16)),
        (GPU, {"model_type": "lora", "base_model_precision": "fp32"}, Precision(FP32, FP32, BF16)),
        (GPU, {"model_type": "lora", "base_model_precision": "fp16"}, Precision(FP16, FP32, BF16)),
        (GPU, {"model_type": "lora", "optimizer": "adamw_bf16"}, Precision(BF16, BF16, None)),
        (GPU, {"model_type": "lora", "optimizer": "adamw_bf16", "base_model_precision": "fp32"},
         Precision(FP32, BF16, BF16)),
    ],
)  # fmt: skip
def test_dtypes(configure, device, options, expected):
    assert resolve_precision(configure(**options), device) == expected


LORA = {"model_type": "lora"}


@pytest.mark.parametrize(
    ("device", "options", "expected"),
    [
        (CPU, {"mixed_precision": "fp16"}, Precision(FP32, FP32, FP16)),
        (GPU, LORA | {"mixed_precision": "fp16"}, Precision(FP16, FP32, FP16)),
        (CPU, LORA | {"base_model_precision": "bf16"}, Precision(BF16, FP32, None)),
        (CPU, LORA | {"base_model_precision": "bf16", "lora_type": "lycoris"}, Precision(BF16, FP32, BF16)),
        (CPU, LORA | {"base_model_precision": "int8-quanto"}, Precision(FP32, FP32, None)),
        (GPU, LORA | {"base_model_precision": "int8-quanto"}, Precision(BF16, FP32, BF16)),
        (CPU, LORA | {"base_model_precision": "int8-quanto", "optimizer": "optimi-lion"}, Precision(BF16, BF16, None)),
        (CPU, LORA | {"base_model_precision": "int8-quanto", "optimizer": "adamw_bf16"}, Precision(BF16, BF16, None)),
        (CPU, LORA | {"base_model_precision": "int8-quanto", "optimizer": "optimi-lion",
                      "base_model_default_dtype": "fp32"}, Precision(FP32, FP32, None)),
    ],
)  # fmt: skip
def test_dtypes_of_adapters(configure, device, options, expected):
    assert resolve_precision(configure(**options), device) == expected


@pytest.mark.parametrize("options", [{"mixed_precision": "fp8"}, {"base_model_precision": "int8-quanto"}])
def test_what_is_not_built_is_refused(configure, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        resolve_precision(configure(**options), CPU)
