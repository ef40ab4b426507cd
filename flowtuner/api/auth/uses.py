"""When keys were used last, written down once a minute at most."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import update

from flowtuner.records.database import Database
from flowtuner.records.tables import ApiKey, now

PERIOD_S = 60.0


class KeyUses:
    """Remembers in memory what was written, so that a request is not a write."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._written: dict[int, float] = {}

    def is_news(self, key_id: int) -> bool:
        """Whether this use is to be written down; says so once."""
        moment = self._clock()
        if moment - self._written.get(key_id, float("-inf")) < PERIOD_S:
            return False
        self._written[key_id] = moment
        return True

    def write(self, database: Database, key_id: int) -> None:
        """Writes down that a key was used now."""
        with database.writing() as session:
            session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=now()))
