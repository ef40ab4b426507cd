"""One webhook as it is configured, and everything that is wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from flowtuner.errors import Fault
from flowtuner.webhooks.addresses import Refused, Rule, find_address

RAW, DISCORD = "raw", "discord"
ADDRESSES = {RAW: "callback_url", DISCORD: "webhook_url"}
LEVELS = ("debug", "info", "warning", "error", "critical")
KNOWN = {"webhook_type", "callback_url", "webhook_url", "log_level", "ssl_no_verify", "message_prefix", "auth_token"}
KNOWN |= {"signing_secret"}


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
        kind = kind_of(entry)
        return cls(
            kind,
            str(entry[ADDRESSES[kind]]),
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
        rank = LEVELS.index(severity) if severity in LEVELS else LEVELS.index("info")
        return rank >= LEVELS.index(self.level)


def kind_of(entry: Mapping[str, Any]) -> str:
    """`raw` or `discord`, as the entry says or as its address shows."""
    return str(entry.get("webhook_type") or (RAW if "callback_url" in entry else DISCORD)).lower()


def find_faults(entries: Sequence[Mapping[str, Any]], rule: Rule | None = None) -> Iterator[Fault]:
    """What is wrong with entries, addresses included that a run may not send to; looks names up, sends nothing."""
    rule = rule or Rule.from_environment()
    for number, entry in enumerate(entries, 1):
        yield from _find_faults(f"webhook_config[{number}]", entry, rule)


def _find_faults(name: str, entry: Mapping[str, Any], rule: Rule) -> Iterator[Fault]:
    for key in entry:
        if key not in KNOWN:
            yield Fault(f"{name}.{key}", None, "", "is not known", _list(sorted(KNOWN)))
    level = str(entry.get("log_level") or "info").lower()
    if level not in LEVELS:
        yield Fault(f"{name}.log_level", level, "", "is no level", _list(LEVELS))
    address = ADDRESSES[kind_of(entry)]
    parts = urlsplit(str(entry[address]))
    try:
        find_address(parts.hostname or "", parts.port or 443, rule)
    except Refused as error:
        yield Fault(f"{name}.{address}", None, "", str(error), suggestion=error.advice)
    except (OSError, ValueError):
        return  # a name that cannot be looked up now may be there when the run tells something


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
