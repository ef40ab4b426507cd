"""Credentials that got among the files of a model: what looks like one never leaves the machine."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

# Weights and vocabularies are larger, and hold every sequence of letters sooner or later.
LOOKED_AT_BYTES = 1 << 20
NAMES = (
    ".env*", "*.env", ".netrc", "token", "token.*", "*.token", "*_token", "*_token.txt", "secrets", "secrets.*",
    "credentials", "credentials.*", "*.pem", "id_rsa*", "id_ed25519*", "*.p12", "*.pfx", "*.keytab",
)  # fmt: skip
TOKENS = re.compile(
    rb"\bhf_[A-Za-z0-9]{30,}\b|\bAKIA[0-9A-Z]{16}\b|\bsl\.[\w-]{60,}|\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bsk-[\w-]{40,}"
    rb"|AccountKey=[\w+/=]{40,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
# Looking for these words first is a hundred times faster than the expression, which then hardly ever runs.
MARKS = (
    b"hf_", b"AKIA", b"sl.", b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"sk-", b"AccountKey=", b"PRIVATE KEY-----",
)  # fmt: skip
SHOWN = 6


def has_secret_name(path: str) -> bool:
    """Whether a file's name says that it holds credentials."""
    name = PurePosixPath(path).name.lower()
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in NAMES)


def find_secrets(folder: Path, paths: Iterable[str]) -> list[str]:
    """Names the files that hold what looks like a credential, and shows no more of it than its kind."""
    found = []
    for path in paths:
        file = folder / path
        if file.stat().st_size > LOOKED_AT_BYTES:
            continue
        data = file.read_bytes()
        if any(mark in data for mark in MARKS) and (match := TOKENS.search(data)):
            start = match[0][:SHOWN].decode(errors="replace")
            found.append(f"{path} holds what looks like a credential ({start}...)")
    return found
