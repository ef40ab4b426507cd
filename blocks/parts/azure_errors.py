"""What Azure Blob refuses or fails at, as our own errors with a remedy."""

from __future__ import annotations

from datetime import UTC, datetime
from types import MappingProxyType

from azure.core import exceptions

from flowtuner.errors import DestinationDown, FlowtunerError, PublishError

# Asking again may help: the service is busy, blocks have expired, or bytes were damaged on their way.
PASSING = frozenset(
    {
        "ServerBusy", "InternalError", "OperationTimedOut", "ContainerBeingDeleted", "AccountBeingCreated",
        "Md5Mismatch", "Crc64Mismatch", "InvalidBlockList", "IncompleteBody", "RequestBodyTooSmall",
    }
)  # fmt: skip

CHECK_KEY = "Check account_key, connection_string or sas_token, and this machine's clock."
GIVE_ROLE = (
    "The SAS or role allows less than is needed: give read, add, create, write, delete and list on the container, or "
    "the role Storage Blob Data Contributor."
)
REMEDIES = MappingProxyType(
    {
        "AuthenticationFailed": f"The credentials are wrong, or the SAS has expired. {CHECK_KEY}",
        "AuthorizationFailure": f"{CHECK_KEY} If they are right, the account's firewall keeps this machine out: add "
        "its address under Networking.",
        "InvalidAuthenticationInfo": CHECK_KEY,
        "NoAuthenticationInformation": CHECK_KEY,
        "KeyBasedAuthenticationNotPermitted": "The account takes no keys: leave them out and sign in instead "
        '(pip install "flowtuner[azure]", az login or a managed identity).',
        "AuthorizationPermissionMismatch": GIVE_ROLE,
        "AuthorizationResourceTypeMismatch": "Make the SAS for containers and objects (srt=co).",
        "AuthorizationServiceMismatch": "Make the SAS for the blob service (ss=b).",
        "AuthorizationProtocolMismatch": "The SAS wants https: correct account_url.",
        "AuthorizationSourceIPMismatch": "The SAS is for other addresses: make one that allows this machine's.",
        "InsufficientAccountPermissions": GIVE_ROLE,
        "AccountIsDisabled": "The account is disabled: ask its owner.",
        "ContainerNotFound": "Create the container or correct `container`.",
        "ContainerDisabled": "The container is disabled: ask its owner.",
        "ResourceNotFound": "The account is not known there: correct account_name or account_url.",
        "InvalidResourceName": "Correct `container`.",
        "BlobImmutableDueToPolicy": "The container keeps what is written for a time: use one without such a policy.",
        "LeaseIdMissing": "Somebody holds a lease on it: break the lease.",
        "InvalidBlobTier": "Leave out access_tier: this account has no tiers.",
        "AccessTierNotSupportedForBlobType": "Leave out access_tier: this account has no tiers.",
        "InvalidHeaderValue": "The storage does not know this version of the API: update it, or its emulator.",
    }
)
STATUS_REMEDIES = MappingProxyType(
    {401: CHECK_KEY, 403: REMEDIES["AuthorizationFailure"], 404: REMEDIES["ContainerNotFound"]}
)


def code_of(error: exceptions.HttpResponseError) -> str:
    """The service's own name for what is wrong, or the HTTP status where there is none."""
    code = getattr(error, "error_code", None) or _header(error) or error.status_code or ""
    return str(getattr(code, "value", code))


def translate(
    error: exceptions.AzureError | exceptions.DeserializationError, name: str, container: str, sas_end: str = ""
) -> FlowtunerError:
    """Our own error for one of Azure's; what may pass by itself is a DestinationDown."""
    if isinstance(error, exceptions.DeserializationError):
        return DestinationDown(f"{name} gave an answer that cannot be read: the bytes were damaged on their way.")
    if isinstance(error, exceptions.HttpResponseError) and error.status_code:
        return _translate_answer(error, name, container, sas_end)
    if isinstance(error, exceptions.ClientAuthenticationError):  # nobody was asked: there is nothing to sign with
        return PublishError(f"{name}: there are no credentials that work: {_first_line(error)}. {_SIGN_IN}")
    if _has_bad_certificate(error):
        return PublishError(f"{name}: {_first_line(error)}. Correct the certificates of this machine or the address.")
    if isinstance(error, exceptions.ServiceRequestError | exceptions.ServiceResponseError):
        return DestinationDown(
            f"{name} does not answer: {_first_line(error)}. If this stays so, check the account's name."
        )
    if isinstance(error, exceptions.HttpResponseError | exceptions.IncompleteReadError | exceptions.DecodeError):
        return DestinationDown(f"{name} answered incompletely: {_first_line(error)}.")
    return PublishError(f"{name}: {_first_line(error)}. Check the entry in publishing_config.")


_SIGN_IN = (
    "Give connection_string, account_key or sas_token, name a stored block, or sign in: az login, a managed identity, "
    "or AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET."
)


def _translate_answer(error: exceptions.HttpResponseError, name: str, container: str, sas_end: str) -> FlowtunerError:
    code, status = code_of(error), int(error.status_code or 0)
    text = f"{name}: the container {container} answered {status} {code}: {_first_line(error)}."
    if code in PASSING or status in (408, 429) or (status >= 500 and status not in (501, 505)):
        return DestinationDown(text)
    if status == 403 and (_is_past(sas_end) or "time frame" in str(error)):
        return PublishError(f"{text} The SAS has expired{f' ({sas_end})' * bool(sas_end)}: make a new one.")
    remedy = REMEDIES.get(code) or STATUS_REMEDIES.get(status, "Check the entry in publishing_config.")
    return PublishError(f"{text} {remedy}")


def _is_past(moment: str) -> bool:
    try:
        end = datetime.fromisoformat(moment)
    except ValueError:  # none, or one that ends by a policy
        return False
    return end.replace(tzinfo=end.tzinfo or UTC) < datetime.now(UTC)


def _header(error: exceptions.HttpResponseError) -> str | None:
    headers = getattr(error.response, "headers", None) or {}
    return headers.get("x-ms-error-code")  # all that a HEAD may be told


def _first_line(error: exceptions.AzureError) -> str:
    return (str(error.message or error).strip().splitlines() or ["no reason given"])[0].rstrip(".")


def _has_bad_certificate(error: exceptions.AzureError) -> bool:
    from requests.exceptions import SSLError

    return isinstance(getattr(error, "inner_exception", None), SSLError) and "certificate" in str(error).lower()
