"""The instruction that Sana's pipeline puts before a prompt, read from the pipeline itself."""

from __future__ import annotations

import inspect


def read_instruction() -> str:
    """The text as the installed diffusers has it, so that training and drawing read the same one."""
    from diffusers import SanaPipeline

    lines = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    return "\n".join(lines)
