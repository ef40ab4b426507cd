"""One shape for every refusal: `detail` for people, `code` for scripts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from flowtuner.errors import ConfigError, Fault, FlowtunerError, Transient
from flowtuner.jobs.environments import EnvironmentRefused
from flowtuner.jobs.starting import KeyReused

ENVIRONMENT_STATUSES = {"missing": 404, "name": 400, "present": 409, "changed": 412, "broken": 409}
TOO_LARGE = "request_too_large"
UNREADABLE = "There was an error parsing the body"  # FastAPI's own words
LOG = logging.getLogger(__name__)


class ApiError(Exception):
    """A request that is refused: with which status, why, and under which code."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        /,
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more


class Refusal(BaseModel):
    """What a refused request is answered."""

    detail: Any
    code: str


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for the documentation."""
    always = (413, 422, 429) if 401 in statuses else (413, 422)
    return {status: {"model": Refusal, "description": HTTPStatus(status).phrase} for status in (*statuses, *always)}


def page_or_json(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that gives programs JSON and people a piece of a page."""
    either = {"text/html": {"schema": {"type": "string"}}, "application/json": {"schema": {"type": "object"}}}
    return {200: {"description": "A piece of a page, or JSON if that is accepted", "content": either}} | refusals(
        *statuses
    )


def not_found(what: str, name: object) -> ApiError:
    """404: there is no such thing."""
    return ApiError(404, f"{what.lower().replace(' ', '_')}_not_found", f"{what} '{name}' not found")


def describe_faults(faults: Sequence[Fault]) -> list[dict[str, str]]:
    """Faults of a configuration as a client reads them; values stay out, they may be secrets."""
    return [
        {
            "option": fault.option,
            "problem": fault.problem,
            "allowed": fault.allowed,
            "suggestion": fault.suggestion,
            "origin": fault.origin,
        }
        for fault in faults
    ]


def install_error_handlers(app: FastAPI) -> None:
    """Turns every exception that leaves a route into the one shape."""
    app.add_exception_handler(ApiError, _answer_api_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)
    app.add_exception_handler(FlowtunerError, _answer_flowtuner_error)
    app.add_exception_handler(Exception, _answer_fault)


def reply(
    status: int, code: str, detail: object, headers: Mapping[str, str] | None = None, /, **more: Any
) -> JSONResponse:
    """A refusal as a response."""
    return JSONResponse({"detail": detail, "code": code} | more, status, dict(headers or {}))


def _answer_api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return reply(error.status, error.code, error.detail, error.headers, **error.more)


def _answer_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 400 and error.detail == UNREADABLE:
        return reply(422, "invalid_request", "The body is not what its Content-Type says")
    if error.status_code == 413:
        return reply(413, TOO_LARGE, error.detail)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_").replace("-", "_")
    return reply(error.status_code, code, error.detail, error.headers)


def _answer_invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    # Without `input`: what was refused may be a password.
    faults = [{"type": each["type"], "loc": list(each["loc"]), "msg": each["msg"]} for each in error.errors()]
    return reply(422, "invalid_request", faults)


def _answer_flowtuner_error(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, ConfigError):
        return reply(422, "invalid_configuration", str(error), errors=describe_faults(error.faults))
    if isinstance(error, EnvironmentRefused):
        return reply(ENVIRONMENT_STATUSES[error.reason], f"configuration_{error.reason}", str(error))
    if isinstance(error, KeyReused):
        return reply(409, "key_reused", str(error))
    if isinstance(error, Transient):
        return reply(503, "try_again", str(error), {"Retry-After": "5"})
    return reply(409, "refused", str(error))


def _answer_fault(request: Request, error: Exception) -> JSONResponse:
    LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return reply(500, "server_fault", "the server failed; its log has the details")
