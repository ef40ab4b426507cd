"""Where the server keeps its things and whom it lets in: flags over environment over defaults."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from flowtuner.api.uploads import UploadLimits
from flowtuner.jobs.server import default_home

HOST = "127.0.0.1"
PORT = 8001


@dataclass(frozen=True)
class ServerSettings:
    """One server's folders, database and limits."""

    home: Path
    working_dir: Path
    config_dir: Path
    datasets_dir: Path
    output_dir: Path
    database_url: str
    host: str = HOST
    port: int = PORT
    is_tls: bool = False
    public_url: str | None = None
    """Where other machines reach this server: their runs send their events there."""
    allowed_origins: tuple[str, ...] = ("http://localhost:3000", "http://localhost:8000")
    rate_limit_calls: int = 360
    rate_limit_period_s: float = 60.0
    upload_limits: UploadLimits = field(default_factory=UploadLimits)

    def read_setup_token(self) -> str:
        """What the first administrator shows from elsewhere; made at the first call, readable by this user alone."""
        path = self.home / "setup_token"
        try:
            return path.read_text(encoding="ascii")
        except FileNotFoundError:
            self.home.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
                with os.fdopen(handle, "w", encoding="ascii") as file:
                    file.write(secrets.token_urlsafe(24))
            return path.read_text(encoding="ascii")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, **flags: object) -> Self:
        """Settings from the environment; flags that are not None win."""
        home = default_home(environ)
        here = Path.cwd()
        config = environ.get("SIMPLETUNER_CONFIG_DIR") or environ.get("FLOWTUNER_CONFIG_DIR") or "config"
        found: dict[str, object] = {
            "home": home,
            "working_dir": here,
            "config_dir": here / Path(config).expanduser(),
            "datasets_dir": here / Path(environ.get("DATASETS_DIR") or "datasets").expanduser(),
            "output_dir": here / Path(environ.get("FLOWTUNER_OUTPUT_DIR") or "output").expanduser(),
            "database_url": environ.get("FLOWTUNER_DATABASE_URL") or f"sqlite:///{home / 'flowtuner.db'}",
            "host": environ.get("SIMPLETUNER_HOST") or HOST,
            "public_url": environ.get("FLOWTUNER_PUBLIC_URL") or None,
            "port": int(environ.get("SIMPLETUNER_PORT") or PORT),
            "rate_limit_calls": int(environ.get("RATE_LIMIT_CALLS") or cls.rate_limit_calls),
            "rate_limit_period_s": float(environ.get("RATE_LIMIT_PERIOD") or cls.rate_limit_period_s),
        }
        if origins := environ.get("ALLOWED_ORIGINS"):
            found["allowed_origins"] = tuple(origin.strip() for origin in origins.split(",") if origin.strip())
        found |= {name: value for name, value in flags.items() if value is not None}
        return cls(**found)  # type: ignore[arg-type]
