"""Who may be told of a run, and what would keep them from it; without torch and without their packages."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flowtuner.engine.packages import is_installed

if TYPE_CHECKING:
    from flowtuner.options import TrainingConfig

TENSORBOARD, WANDB, COMET = "tensorboard", "wandb", "comet_ml"
SERVICES = MappingProxyType({WANDB: "W&B", COMET: "Comet"})
EXTRAS = MappingProxyType({WANDB: "wandb", COMET: "comet"})
OFF = ("0", "false", "no")


def wanted_trackers(config: TrainingConfig) -> list[str]:
    """Who is told of a run; `all` means every tracker that is installed."""
    names = config.report_to.split(",")
    wanted = [TENSORBOARD] if TENSORBOARD in names or ("all" in names and is_installed(TENSORBOARD)) else []
    told = [name for name in SERVICES if name in names or "all" in names]
    return wanted + [name for name in told if find_obstacle(name) is None]


def find_obstacle(name: str) -> tuple[str, str] | None:
    """Why a service would not be told of a run, and what helps."""
    if not is_installed(name):
        return f"the package {name} is not installed", f"pip install 'flowtuner[{EXTRAS[name]}]'"
    if name == WANDB and not _knows_wandb():
        return "W&B has no key here", "set WANDB_API_KEY, run `wandb login`, or set WANDB_MODE=offline and sync later"
    if name == COMET and not _knows_comet():
        advice = "set COMET_API_KEY, run `comet login`, or set COMET_START_ONLINE=0 and upload later"
        return "Comet has no key here", advice
    return None


def _knows_wandb() -> bool:
    """Whether W&B's library would not have to ask for a key: one is set or stored, or nothing is to be sent."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _knows_comet() -> bool:
    if os.environ.get("COMET_API_KEY") or os.environ.get("COMET_START_ONLINE", "").lower() in OFF:
        return True
    return Path(os.environ.get("COMET_CONFIG", "~/.comet.config")).expanduser().is_file()
