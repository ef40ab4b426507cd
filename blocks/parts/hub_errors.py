"""What the Hub and its client refuse or fail at, as our own errors with a remedy."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from flowtuner.errors import DestinationDown, FlowtunerError, PublishError

LATER = frozenset({408, 412, 425, 429})
FIX_401 = (
    'Check that the job has secrets={"HF_TOKEN": "$HF_TOKEN"}, ask `hf auth whoami`, and sign in again with '
    "`hf auth login`."
)
FIX_403 = (
    "Check that the repository's namespace is your user name, or an organisation that you are a member of and may "
    "write in; that the token's role is write; and, if the repository is private, that it is yours or your "
    "organisation's."
)
FIX_404 = (
    "Create it by hand (`flowtuner hub create`), check that the name is owner/name, and check that the owner exists."
)
FIX_OFFLINE = "Unset HF_HUB_OFFLINE, or publish elsewhere and run `flowtuner publish` with a network."
STATUS = MappingProxyType(
    {
        400: ("token_or_content", "refused the content", "Read what the Hub says."),
        401: ("token_invalid", "does not accept the token", FIX_401),
        402: ("quota", "asks for payment: the storage of the account is used up", "Free space or upgrade the account."),
        403: ("write_forbidden", "refuses the token this repository", FIX_403),
        404: ("not_found", "knows no such repository, or does not show it to this token", FIX_404),
        409: ("name_conflict", "already has something of this name", "Choose another hub_model_id."),
        413: ("too_large", "takes no files of this size", "Leave them out with `exclude`."),
    }
)
# The client takes answers apart without looking first: one whose bytes were damaged on their way becomes any of these.
GARBLED = (LookupError, NameError, TypeError, AttributeError)
UNREADABLE = "gave an answer that cannot be read"
XET_STATUS = re.compile(r"\b(401|403|404)\b")


@dataclass(frozen=True)
class Party:
    """Who was asked for what with whose token; what every message says."""

    name: str
    repo_id: str
    endpoint: str
    token_source: str


@contextlib.contextmanager
def translated(party: Party) -> Iterator[None]:
    """Turns what the client raises into PublishError and DestinationDown."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        raise translate_status(status_of(error), _server_words(error), party) from error
    except httpx2.HTTPError as error:
        raise DestinationDown(f"{party.name}: {party.endpoint} does not answer: {_short(error)}.") from error
    except ConnectionError as error:
        raise _translate_connection(error, party) from error
    except RuntimeError as error:
        raise _translate_upload(error, party) from error
    except ValueError as error:
        raise _translate_value(error, party) from error
    except GARBLED as error:
        raise DestinationDown(f"{party.name}: {party.endpoint} {UNREADABLE}: {_short(error)}.") from error
    except OSError as error:
        raise PublishError(f"{party.name}: {error.strerror or error}: {error.filename}. Check the disk.") from error


def status_of(error: Any) -> int:
    """The HTTP status behind an error, 0 where there is none."""
    response = getattr(error, "response", None)
    return int(getattr(response, "status_code", 0) or 0)


def translate_status(status: int, words: str, party: Party) -> FlowtunerError:
    """What an answer that is no success means for whoever publishes."""
    said = f": {words}" if words else ""
    if status in LATER or status >= 500 or status == 0:
        return DestinationDown(f"{party.name}: {party.endpoint} answered {status or 'nothing'}{said}. It may pass.")
    code, problem, remedy = STATUS.get(status, ("refused", f"answered {status}", "Read what the Hub says."))
    return PublishError(
        f"{code}: {party.endpoint} {problem} ({status}{said}) for {party.repo_id}; the token is from "
        f"{party.token_source}. {remedy}"
    )


def _server_words(error: Any) -> str:
    words = str(getattr(error, "server_message", "") or "")
    return words.strip().rstrip(".").replace("\n", " ")[:200]


def _translate_connection(error: ConnectionError, party: Party) -> FlowtunerError:
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return PublishError(f"{party.name}: HF_HUB_OFFLINE is set, so nothing reaches the Hub. {FIX_OFFLINE}")
    # The xet protocol's client tells a refusal as a network error; the status stands in its text alone.
    found = XET_STATUS.search(str(error))
    if found:
        return translate_status(int(found[1]), "", party)
    return DestinationDown(f"{party.name}: the upload broke off: {_short(error)}.")


def _translate_upload(error: RuntimeError, party: Party) -> FlowtunerError:
    cause = error.__cause__
    if status_of(cause):
        return translate_status(status_of(cause), _server_words(cause), party)
    found = XET_STATUS.search(str(error))
    if found and cause is None:
        return translate_status(int(found[1]), "", party)
    return DestinationDown(f"{party.name}: the upload broke off: {_short(cause or error)}.")


def _translate_value(error: ValueError, party: Party) -> FlowtunerError:
    from huggingface_hub.errors import HFValidationError

    if isinstance(error, HFValidationError):
        return PublishError(f"name_invalid: {party.repo_id}: {_short(error)} The name must be owner/name.")
    if "Invalid metadata in README.md" in str(error) or "LFS batch API returned errors" in str(error):
        return PublishError(f"{party.name}: the Hub refused the content: {_short(error)}")
    return DestinationDown(f"{party.name}: {party.endpoint} {UNREADABLE}: {_short(error)}.")


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
