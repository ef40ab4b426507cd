"""What a run on another machine needs to send its events here: the address, and a token for its own job alone."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket
from dataclasses import dataclass

from flowtuner.records.database import Database
from flowtuner.records.tables import Setting
from flowtuner.telling.delivery import HOST, TOKEN, URL

SECRET = "delivery_secret"  # noqa: S105  the setting's name


@dataclass(frozen=True)
class RunTokens:
    """Hands out tokens and knows them again, in whichever server of this database."""

    database: Database
    url: str | None
    """Where other machines reach this server; None if they cannot."""

    def environment_of(self, job_id: str) -> dict[str, str]:
        """What the run of a job is started with."""
        if self.url is None:
            return {}
        return {
            URL: f"{self.url.rstrip('/')}/api/runs/{job_id}/events",
            TOKEN: self.token_of(job_id),
            HOST: socket.gethostname(),
        }

    def token_of(self, job_id: str) -> str:
        """The token of a job."""
        return hmac.new(self._secret(), job_id.encode(), hashlib.sha256).hexdigest()

    def knows(self, job_id: str, token: str) -> bool:
        """Whether a token is that of a job."""
        return hmac.compare_digest(token.encode(), self.token_of(job_id).encode())

    def _secret(self) -> bytes:
        with self.database.reading() as session:
            known = session.get(Setting, SECRET)
        if known is None:
            with self.database.writing() as session:
                known = session.get(Setting, SECRET) or Setting(name=SECRET, value=secrets.token_hex(32))
                session.add(known)
        return bytes.fromhex(str(known.value))
