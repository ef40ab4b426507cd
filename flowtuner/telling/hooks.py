"""One webhook as it is configured, and everything that is wrong with it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from flowtuner.errors import Fault
from flowtuner.options.entries import WEBHOOK_ADDRESSES, WEBHOOK_LEVELS, kind_of_webhook
from flowtuner.telling.addresses import Refused, Rule, find_address

RAW = "raw"
SECRET_PREFIX = "whsec_"  # noqa: S105  how Standard Webhooks marks one


@dataclass(frozen=True)
class Hook:
    """Where a run's events go, which of them, and with what proof of who sends them."""

    kind: str
    url: str
    level: str = "info"
    verifies: bool = True
    prefix: str = ""
    auth_token: str = ""
    signing_secret: str = ""

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Self:
        """The webhook of an entry of `webhook_config`."""
        kind = kind_of_webhook(entry)
        return cls(
            kind,
            str(entry[WEBHOOK_ADDRESSES[kind]]),
            str(entry.get("log_level") or "info").lower(),
            not entry.get("ssl_no_verify", False),
            str(entry.get("message_prefix") or ""),
            str(entry.get("auth_token") or ""),
            str(entry.get("signing_secret") or ""),
        )

    @property
    def host(self) -> str:
        """What may be shown of the address: the path of a Discord address is a credential."""
        return urlsplit(self.url).hostname or ""

    @property
    def fingerprint(self) -> str:
        """Tells this webhook from others, in a file that holds no secret."""
        return hashlib.sha256(f"{self.kind} {self.url}".encode()).hexdigest()[:16]

    def wants(self, severity: str) -> bool:
        """Whether an event of this severity is told."""
        rank = WEBHOOK_LEVELS.index(severity) if severity in WEBHOOK_LEVELS else WEBHOOK_LEVELS.index("info")
        return rank >= WEBHOOK_LEVELS.index(self.level)


def find_faults(entries: Sequence[Mapping[str, Any]], rule: Rule | None = None) -> Iterator[Fault]:
    """The addresses that a run may not send to, and secrets that sign nothing; looks names up, sends nothing."""
    rule = rule or Rule.from_environment()
    for number, entry in enumerate(entries, 1):
        name, hook = f"webhook_config[{number}]", Hook.of(entry)
        parts = urlsplit(hook.url)
        try:
            key_of(hook.signing_secret)
        except ValueError:
            yield Fault(f"{name}.signing_secret", None, "", f"is no base64 behind {SECRET_PREFIX}")
        try:
            find_address(hook.host, parts.port or 443, rule)
        except Refused as error:
            yield Fault(f"{name}.{WEBHOOK_ADDRESSES[hook.kind]}", None, "", str(error), suggestion=error.advice)
        except (OSError, ValueError):
            continue  # a name that cannot be looked up now may be there when the run tells something


def key_of(secret: str) -> bytes:
    """The key that a secret stands for: as it is, or in base64, as Standard Webhooks writes it."""
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
