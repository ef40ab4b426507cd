"""Which addresses a webhook may go to: none inside somebody's network, unless whoever runs the machine allows it."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

VARIABLE = "FLOWTUNER_WEBHOOK_ALLOW"


class Refused(Exception):  # noqa: N818  what it says is the refusal
    """An address that may not be sent to."""

    advice = f"Whoever runs this machine may allow it: {VARIABLE}=HOST, a network such as 10.0.0.0/8, or *."


@dataclass(frozen=True)
class Rule:
    """The private hosts and networks that are allowed all the same."""

    allowed: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """What the machine's owner allows."""
        return cls(tuple(name.strip().lower() for name in environ.get(VARIABLE, "").split(",") if name.strip()))

    def allows(self, host: str, address: str) -> bool:
        """Whether an address, which a host name was looked up to, may be sent to."""
        place = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(place, "ipv4_mapped", None)
        place = mapped or place
        if place.is_global and not place.is_multicast:
            return True
        return any(fnmatchcase(host.lower(), name) or _holds(name, place) for name in self.allowed)


def find_address(host: str, port: int, rule: Rule) -> str:
    """The first address of a host that may be sent to.

    The connection goes to this address and no other: a name that is looked up twice may mean two machines.
    """
    found = [entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in found:
        if rule.allows(host, str(address)):
            return str(address)
    raise Refused(f"leads to {host}, an address inside a private network")


def _holds(network: str, place: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return place in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
