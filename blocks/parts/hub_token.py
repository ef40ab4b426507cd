"""The token that the Hub is spoken to with, and where it was found."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True)
class HubToken:
    """A token and its source, in words; the value is empty where none was found."""

    value: str
    source: str

    def __repr__(self) -> str:
        return f"HubToken({self.source})"

    @property
    def problem(self) -> str | None:
        """What can be seen to be wrong with it without asking anybody."""
        if not self.value:
            return "there is no token"
        if self.value.startswith("$"):
            # The name of the variable is no secret, and is what has to be looked at.
            return f"the token from {self.source} is a placeholder that nobody has replaced"
        if any(letter.isspace() for letter in self.value):
            return f"the token from {self.source} has spaces in it"
        return None


def find_token(said: str | None, source: str, environ: Mapping[str, str] = os.environ) -> HubToken:
    """The token that was said, else that of the environment, else the one that `hf auth login` has kept."""
    if said and said.strip():
        return HubToken(said.strip(), source)
    for name in VARIABLES:
        if environ.get(name, "").strip():
            return HubToken(environ[name].strip(), f"the environment variable {name}")
    path = _token_file(environ)
    try:
        kept = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        kept = ""
    return HubToken(kept, f"the file {path}") if kept else HubToken("", "nowhere")


def _token_file(environ: Mapping[str, str]) -> Path:
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(environ.get("HF_HOME") or cache / "huggingface")
    return Path(environ.get("HF_TOKEN_PATH") or home / "token").expanduser()
