"""Whether a configured Prefect server answers, found out in seconds and before Prefect is imported."""

from __future__ import annotations

import urllib.error
import urllib.request

from flowtuner.errors import Transient

REPLY_TIMEOUT_S = 10.0


class Unreachable(Transient):
    """The configured Prefect server does not answer."""


def require_answer(api_url: str) -> None:
    """Raises Unreachable unless somebody answers at a Prefect API's address, whatever the answer is."""
    try:
        with urllib.request.urlopen(f"{api_url.rstrip('/')}/health", timeout=REPLY_TIMEOUT_S):
            return
    except urllib.error.HTTPError:
        return  # it is there and may only want a password, which Prefect's own client knows
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unreachable(
            f"the Prefect server at {api_url} does not answer: {reason}. Start it, correct PREFECT_API_URL, "
            "or unset it: `flowtuner train` then runs a server of its own."
        ) from error
