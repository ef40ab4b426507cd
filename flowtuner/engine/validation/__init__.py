"""Pictures during training: which prompts, at which sizes, drawn without touching the training itself."""

from flowtuner.engine.validation.prompts import ValidationPrompt, texts_to_encode, validation_prompts
from flowtuner.engine.validation.render import run_validation
from flowtuner.engine.validation.sizes import parse_resolutions

__all__ = ["ValidationPrompt", "parse_resolutions", "run_validation", "texts_to_encode", "validation_prompts"]
