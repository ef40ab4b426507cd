"""What every uploaded object says of itself: its content type, and the run that it belongs to."""

from __future__ import annotations

import mimetypes
from urllib.parse import quote

from flowtuner.publishing.manifest import Manifest

OCTETS = "application/octet-stream"


def content_type_of(key: str) -> str:
    """The content type that a name's ending stands for."""
    return mimetypes.guess_type(key)[0] or OCTETS


def metadata_of(manifest: Manifest, joint: str = "-") -> dict[str, str]:
    """The run, its step and its id, as metadata whose names are joined as the storage allows."""
    about = {
        "run": manifest.run,
        f"run{joint}id": manifest.run_id,
        "step": manifest.step,
        f"validation{joint}type": manifest.metadata.get("validation_type", ""),
        f"job{joint}id": manifest.metadata.get("job_id", ""),
    }
    # Metadata travels in headers, which hold ASCII only.
    return {f"flowtuner{joint}{key}": quote(str(value), safe=" ") for key, value in about.items() if value != ""}
