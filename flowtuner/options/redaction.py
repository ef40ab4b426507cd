"""What may be shown of options: everything but what may be a credential, by its name or by how it looks."""

from __future__ import annotations

import difflib
import re
from typing import Any

SECRET = re.compile(r"key|token|secret|password|credential|connection_string|headers|webhook_url|callback_url", re.I)
PUBLIC = re.compile(r"key_prefix|tokenizer|max_tokens|kms_key_id", re.I)
HIDDEN = "***"
USER = re.compile(r"(?<=://)[^/@\s]+(?=@)")
SIGNATURE = re.compile(r"(?<=[?&])([^=&#\s]*(?:sig|token|key|secret|passw|credential)[^=&#\s]*=)[^&#\s]+", re.I)
# Names of which a mistyped one still holds what it was meant to hold.
MEANT = ("token", "access_token", "refresh_token", "secret", "password", "access_key", "secret_key", "account_key")
LIKENESS = 0.85


class CoveredError(Exception):
    """A credential is hidden, and which one it stands for cannot be told."""


def hide_secrets(value: Any) -> Any:
    """A copy of nested values in which everything under a secret-looking key is hidden, and credentials in URLs."""
    if isinstance(value, dict):
        return {key: HIDDEN if _is_secret(str(key), item) else hide_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [hide_secrets(item) for item in value]
    if isinstance(value, str):
        return SIGNATURE.sub(rf"\1{HIDDEN}", USER.sub(HIDDEN, value))
    return value


def restore_secrets(value: Any, stored: Any) -> Any:
    """What was hidden when it was read is what is stored, if everything around it is still the same.

    A credential goes where its address says: beside another address it would go to somebody else, so that one is
    refused with CoveredError.
    """
    if value == HIDDEN and stored not in (None, ""):
        return stored
    if value == hide_secrets(stored):
        return stored
    if isinstance(value, list):
        olds = stored if isinstance(stored, list) else []
        shown = [hide_secrets(old) for old in olds]
        return [olds[shown.index(item)] if item in shown else _refuse_covered(item) for item in value]
    return _refuse_covered(value)


def _refuse_covered(value: Any) -> Any:
    if _is_covered(value):
        raise CoveredError
    return value


def _is_covered(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_is_covered, value.values()))
    if isinstance(value, list):
        return any(map(_is_covered, value))
    return isinstance(value, str) and (value == HIDDEN or f"://{HIDDEN}@" in value or f"={HIDDEN}" in value)


def _is_secret(key: str, value: Any) -> bool:
    hides = PUBLIC.search(key) is None and (SECRET.search(key) is not None or _is_mistyped(key))
    return hides and value not in (None, "", [], {}) and not isinstance(value, bool | int | float)


def _is_mistyped(key: str) -> bool:
    return bool(difflib.get_close_matches(key.lower(), MEANT, n=1, cutoff=LIKENESS))
