"""What Dropbox refuses or fails at, as our own errors with a remedy."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import requests
import urllib3
from dropbox import exceptions
from stone.backends.python_rsrc.stone_validators import ValidationError

from flowtuner.errors import DestinationDown, FlowtunerError, PublishError

BROKEN_LINE = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
    urllib3.exceptions.HTTPError,
    ConnectionError,
    TimeoutError,
)
# What a call to the SDK raises: its own errors, those of the line, and those of a reply that is not Dropbox's language.
RAISED = (
    exceptions.DropboxException,
    requests.RequestException,
    *BROKEN_LINE,
    ValidationError,
    AssertionError,
    ValueError,
    KeyError,
)
PASSING = frozenset({"too_many_write_operations", "content_hash_mismatch", "length_mismatch", "internal_error"})
NOT_JSON = "could not decode input as JSON"  # every request of ours is JSON when it leaves this machine

FULL = "The account is full: free space there or get more."
NOT_WRITABLE = "Give this account the right to write there, or choose another base_path."
NAME = "Dropbox takes no such name: change base_path, output_dir or the file's name, or exclude the file."
REMEDIES = MappingProxyType(
    {
        "insufficient_space": FULL,
        "team_folder_insufficient_space": FULL,
        "member_folder_insufficient_space": FULL,
        "upload_traffic_limit_reached": "The account's traffic of this month is used up: wait, or get more.",
        "no_write_permission": NOT_WRITABLE,
        "access_restricted": NOT_WRITABLE,
        "operation_suppressed": NOT_WRITABLE,
        "team_folder": NOT_WRITABLE,
        "folder": "A folder stands where a file is needed: move it away.",
        "file": "A file stands there already: move it away.",
        "file_ancestor": "A file stands where a folder is needed: move it away.",
        "disallowed_name": NAME,
        "malformed_path": NAME,
        "not_file": "A folder stands where a file is needed: move it away.",
        "not_folder": "A file stands where a folder is needed: move it away.",
        "locked": "Somebody has locked it: unlock it in Dropbox.",
        "restricted_content": "Dropbox has blocked this file: look at it on its website.",
        "email_not_verified": "Verify the account's address of e-mail on Dropbox's website.",
    }
)
TOKENS = "Make a new token in the app's console, or give refresh_token and app_key, which renew themselves."
AUTH_REMEDIES = MappingProxyType(
    {
        "expired_access_token": f"The token has expired; one that begins with `sl.` lives four hours. {TOKENS}",
        "invalid_access_token": "The token is wrong, or the app's access was revoked: authorize the app again and "
        "replace token, or refresh_token with its app_key.",
        "user_suspended": "Dropbox has suspended this account: sign in on its website to see why.",
        "route_access_denied": "The app may not do this: check its type and permissions in the app's console.",
    }
)


class DamagedReplyError(ValueError):
    """An answer that cannot be true: asking again may give another."""


def tags_of(error: Any) -> list[str]:
    """The service's own names for what is wrong, from the general to the particular."""
    found: list[str] = []
    value: Any = getattr(error, "error", error)
    while hasattr(value, "_tag"):
        found.append(str(value._tag))
        value = getattr(value._value, "reason", value._value)
    return found


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, requests.exceptions.SSLError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    if isinstance(error, (*BROKEN_LINE, exceptions.InternalServerError, exceptions.RateLimitError)):
        return True
    if isinstance(error, exceptions.ApiError):
        return not PASSING.isdisjoint(tags_of(error))
    if isinstance(error, exceptions.BadInputError):
        return NOT_JSON in str(error.message)
    # The rest is what becomes of a garbled reply; settings that the SDK refuses are checked before it sees them.
    return not isinstance(error, exceptions.DropboxException | requests.RequestException) or isinstance(
        error, requests.exceptions.JSONDecodeError
    )


def translate(error: BaseException, name: str) -> FlowtunerError:
    """Our own error for one of the SDK's; what may pass by itself is a DestinationDown."""
    if isinstance(error, exceptions.RateLimitError):
        later = f" for {error.backoff:g} s" if error.backoff else ""
        return DestinationDown(f"{name}: Dropbox asks us to wait{later}: too many requests.")
    if isinstance(error, exceptions.InternalServerError):
        return DestinationDown(f"{name}: Dropbox answered {error.status_code}.")
    if isinstance(error, requests.exceptions.SSLError) and not is_passing(error):
        return PublishError(f"{name}: the certificate is not trusted: {error}. Check this machine's certificates.")
    if isinstance(error, BROKEN_LINE):
        return DestinationDown(f"{name} does not answer: {_first_line(error)}")
    if isinstance(error, exceptions.AuthError):
        return PublishError(f"{name}: {_explain_auth(error)}")
    if isinstance(error, exceptions.PathRootError):
        return PublishError(f"{name}: the namespace is not this account's. Correct `namespace`.")
    if isinstance(error, exceptions.ApiError):
        return _translate_refusal(error, name)
    if isinstance(error, exceptions.HttpError) and not is_passing(error):
        hint = "Check app_key and app_secret." if "client" in str(error.body) else "Check the entry."
        return PublishError(f"{name}: Dropbox answered {error.status_code}: {_first_line(error.body)}. {hint}")
    if is_passing(error):
        return DestinationDown(f"{name}: the answer is not Dropbox's, or was damaged on its way. Is a proxy between?")
    return PublishError(f"{name}: {_first_line(error)}. Check the entry in publishing_config.")


def _explain_auth(error: exceptions.AuthError) -> str:
    tags = tags_of(error)
    if tags[:1] == ["missing_scope"]:
        scope = error.error.get_missing_scope().required_scope
        return (
            f"the app lacks the permission {scope}. Tick it under Permissions in the app's console, then make a new "
            "token: those made before do not gain it."
        )
    known = [AUTH_REMEDIES[tag] for tag in tags if tag in AUTH_REMEDIES]
    return known[0] if known else f"Dropbox answered 401 {'/'.join(tags) or 'without a reason'}. {TOKENS}"


def _translate_refusal(error: exceptions.ApiError, name: str) -> FlowtunerError:
    tags = tags_of(error)
    text = f"{name}: Dropbox answered {'/'.join(tags) or 'a refusal'}."
    if is_passing(error):
        return DestinationDown(text)
    remedy = next((REMEDIES[tag] for tag in reversed(tags) if tag in REMEDIES), "Check the entry in publishing_config.")
    return PublishError(f"{text} {remedy}")


def _first_line(text: object) -> str:
    return (str(text).strip().splitlines() or ["no reason given"])[0][:300]
