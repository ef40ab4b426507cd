"""How often a request to Azure is made again: the SDK's own policy gives up at 429 and does not look at Retry-After."""

from __future__ import annotations

import random
import threading
from typing import Any

from azure.core.exceptions import ServiceRequestError, ServiceResponseError
from azure.storage.blob import ExponentialRetry

PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 20.0


class Patience(ExponentialRetry):
    """Tries again after faults that pass, as long as the service asks, but never for longer than a bound."""

    def __init__(self, attempts: int, given_up: threading.Event) -> None:
        super().__init__(retry_total=attempts - 1)
        self._attempts = attempts
        self._given_up = given_up

    def send(self, request: Any) -> Any:
        """One request, until it is answered or there is no point in going on."""
        settings = self.configure_retries(request)
        for attempt in range(1, self._attempts + 1):
            response, wait_s = None, random.uniform(0.5, 1) * min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S)
            try:
                response = self.next.send(request)
                response.http_response.location_mode = settings["mode"]  # the SDK's readers of answers want it
                if response.http_response.status_code not in PASSING_STATUS:
                    return response
                wait_s = _asked_wait_s(response.http_response.headers) or wait_s
            except (ServiceRequestError, ServiceResponseError):
                if attempt == self._attempts or self._given_up.wait(wait_s):
                    raise
            # A service that asks for more is left alone; whoever called tries again later.
            if response and (attempt == self._attempts or wait_s > LONGEST_WAIT_S or self._given_up.wait(wait_s)):
                return response
            _rewind(request.http_request, settings["body_position"])
        raise AssertionError("the last attempt answers or raises")


def _asked_wait_s(headers: Any) -> float:
    try:
        return max(float(headers.get("Retry-After") or 0), 0.0)
    except ValueError:  # a date, which Azure does not send
        return LONGEST_WAIT_S


def _rewind(request: Any, position: int | None) -> None:
    if position is not None:
        request.body.seek(position)
