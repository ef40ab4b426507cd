"""Whether a Prefect API is already configured, found out without importing prefect (which reads its settings once)."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def find_api_url(environ: Mapping[str, str] = os.environ, folder: Path | None = None) -> str | None:
    """The API that Prefect would use: environment, prefect.toml, pyproject.toml, then the active profile."""
    folder = folder or Path.cwd()
    settings = (
        environ.get("PREFECT_API_URL"),
        _dig(_read_toml(folder / "prefect.toml"), "api", "url"),
        _dig(_read_toml(folder / "pyproject.toml"), "tool", "prefect", "api", "url"),
        _profile_url(environ),
    )
    return next((url for url in settings if url), None)


def _profile_url(environ: Mapping[str, str]) -> str | None:
    home = Path(environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    profiles = _read_toml(Path(environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml"))
    active = environ.get("PREFECT_PROFILE") or profiles.get("active")
    return _dig(profiles, "profiles", str(active), "PREFECT_API_URL")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):  # Prefect itself complains about its own broken files
        return {}


def _dig(value: Any, *keys: str) -> str | None:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None
