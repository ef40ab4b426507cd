"""Who may do what on the Hub fake: users, organisations, and tokens that read, write, or do so in places only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["read", "write", "fineGrained"]

ALICE = "hf_canaryAliceWrites00000000000001"
ALICE_READS = "hf_canaryAliceReads000000000000002"
ALICE_FINE = "hf_canaryAliceFineGrained00000003"
BOB = "hf_canaryBobWrites000000000000004"
WRITERS = ("write", "admin", "contributor")


@dataclass
class User:
    """A person, with a role in each organisation they belong to."""

    name: str
    orgs: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Token:
    """What somebody signs in with; a fine-grained one names the namespaces and repositories it may write."""

    user: User
    role: Role
    writes: frozenset[str] = frozenset()
    is_expired: bool = False


@dataclass
class Accounts:
    """All tokens that are valid; removing one revokes it."""

    tokens: dict[str, Token]

    @classmethod
    def usual(cls) -> Accounts:
        """Alice, who writes in acme and reads in readers, with three tokens; and Bob."""
        alice, bob = User("alice", {"acme": "write", "readers": "read"}), User("bob")
        return cls(
            {
                ALICE: Token(alice, "write"),
                ALICE_READS: Token(alice, "read"),
                ALICE_FINE: Token(alice, "fineGrained", frozenset({"acme"})),
                BOB: Token(bob, "write"),
            }
        )

    def may_read(self, token: Token | None, namespace: str) -> bool:
        """Whether the private things of a namespace are shown to a token."""
        return token is not None and (token.user.name == namespace or namespace in token.user.orgs)

    def may_write(self, token: Token | None, namespace: str, repo_id: str = "") -> bool:
        """Whether a token may create in a namespace, or change a repository of it."""
        if token is None or token.role == "read":
            return False
        if token.user.name != namespace and token.user.orgs.get(namespace) not in WRITERS:
            return False
        return token.role == "write" or bool({namespace, repo_id} & token.writes)


def whoami(token: Token) -> dict[str, Any]:
    """What the Hub tells about a token's owner."""
    access: dict[str, Any] = {"displayName": "test", "role": token.role}
    if token.role == "fineGrained":
        access["fineGrained"] = {"global": [], "scoped": [_scope(token, place) for place in sorted(token.writes)]}
    orgs = [{"type": "org", "name": name, "roleInOrg": role} for name, role in token.user.orgs.items()]
    return {
        "type": "user",
        "name": token.user.name,
        "fullname": token.user.name,
        "orgs": orgs,
        "auth": {"type": "access_token", "accessToken": access},
    }


def _scope(token: Token, place: str) -> dict[str, Any]:
    kind = "model" if "/" in place else "user" if place == token.user.name else "org"
    return {"entity": {"_id": "1", "type": kind, "name": place}, "permissions": ["repo.content.read", "repo.write"]}
