"""The meaning of AWS's error codes, in the one taxonomy.

Only an unambiguous denial counts as a refusal. An error of the credentials themselves (expired, of
another account's token, wrongly signed) says nothing about the key. Nor does an error while the
Core's own credentials are fetched: AWS then denies a role to the Core (``AccessDenied``) with the
same words with which it denies a customer's role.

A denial's message names the kind of policy that caused it (AWS: *Troubleshooting access denied
error messages*). A policy of the Core's own account, or of the network in between, is not the
owner's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from botocore import exceptions as boto
from botocore.exceptions import ClientError

from kcm_core.providers import clock_skew
from kcm_core.providers.credentials import NO_CREDENTIALS
from kcm_core.providers.state import L1Error, L1State

_BUSY: Final = "AWS cannot serve this at the moment"

CODES: Final[dict[str, tuple[L1State, str]]] = {
    "DisabledException": (L1State.DISABLED, "the key is disabled"),
    "NotFoundException": (L1State.DELETED, "there is no such key or alias in this region"),
    "AccessDeniedException": (L1State.FORBIDDEN, "the key's policy does not allow it"),
    "AccessDenied": (L1State.FORBIDDEN, "the role may not be assumed"),
    "InvalidCiphertextException": (L1State.INVALID, "the blob does not authenticate"),
    "IncorrectKeyException": (L1State.INVALID, "another key wrapped the blob"),
    **dict.fromkeys(
        (
            "ExpiredToken",
            "ExpiredTokenException",
            "IncompleteSignature",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
            "NotAuthorizedException",
            "OptInRequired",
            "RequestExpired",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
        ),
        NO_CREDENTIALS,
    ),
    **dict.fromkeys(
        (
            "DependencyTimeoutException",
            "InternalFailure",
            "KMSInternalException",
            "KeyUnavailableException",
            "LimitExceededException",
            "RequestLimitExceeded",
            "ServiceUnavailable",
            "Throttling",
            "ThrottlingException",
            "TooManyRequestsException",
        ),
        (L1State.UNREACHABLE, _BUSY),
    ),
    **dict.fromkeys(
        ("InvalidKeyUsageException", "UnsupportedOperationException"),
        (L1State.UNREACHABLE, "wrong kind of key: it must be symmetric, for encryption"),
    ),
    "RequestTimeTooSkewed": (L1State.UNREACHABLE, clock_skew.REFUSED),
    "ValidationException": (L1State.UNREACHABLE, "AWS does not understand the request"),
    "InvalidArnException": (L1State.UNREACHABLE, "the key's ARN is not of this region"),
    "DryRunOperationException": (L1State.UNREACHABLE, "AWS did not carry out the request"),
}
"""By AWS's code. All other codes are ``unreachable``."""

CLASSES: Final[dict[type[Exception], tuple[L1State, str]]] = {
    boto.ConnectTimeoutError: (L1State.UNREACHABLE, "AWS does not answer"),
    boto.ReadTimeoutError: (L1State.UNREACHABLE, "AWS does not answer"),
    boto.EndpointConnectionError: (L1State.UNREACHABLE, "AWS cannot be reached"),
    boto.ConnectionClosedError: (L1State.UNREACHABLE, "the connection was closed"),
    boto.SSLError: (L1State.UNREACHABLE, "the endpoint's certificate is not trusted"),
    boto.ProxyConnectionError: (L1State.UNREACHABLE, "the proxy cannot be reached"),
    boto.NoCredentialsError: NO_CREDENTIALS,
    boto.PartialCredentialsError: NO_CREDENTIALS,
    boto.CredentialRetrievalError: NO_CREDENTIALS,
    boto.TokenRetrievalError: NO_CREDENTIALS,
    boto.ProfileNotFound: NO_CREDENTIALS,
}
"""By botocore's class, for errors without an answer of AWS. All others are ``unreachable``."""

STATE: Final = "KMSInvalidStateException"
"""The one code for several states, which only its message distinguishes."""

ON_THE_WAY: Final = ("VPC endpoint policy", "session policy")
"""Policies of the Core's operator, for every principal."""

OUR_OWN: Final = ("identity-based policy", "permissions boundary", "service control policy")
"""Policies of the requesting account: the Core's, unless the link names a role."""

_DENIED: Final = ("AccessDenied", "AccessDeniedException")

_PENDING: Final = ("pending deletion", "pending replica deletion")
"""Parts of AWS's message about a key that is pending deletion."""


def name_of(error: Exception) -> str:
    """Return AWS's code, otherwise the exception's class."""
    code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else ""
    return str(code or type(error).__name__)


@contextmanager
def translated(*, in_a_role: bool = False) -> Iterator[None]:
    """Turn botocore's exceptions into ``L1Error``; AWS's texts are dropped.

    ``in_a_role`` says that the link names the role that uses the key: then the role's policies
    belong to the key's owner.
    """
    try:
        yield
    except ClientError as error:
        raise _of_code(error, in_a_role=in_a_role) from None
    except boto.BotoCoreError as error:
        known = next((CLASSES[one] for one in type(error).__mro__ if one in CLASSES), None)
        state, detail = known or (L1State.UNREACHABLE, "AWS did not perform the request")
        detail = clock_skew.told(detail, error, of_credentials=known == NO_CREDENTIALS)
        raise L1Error(state, detail, cls=type(error).__name__) from None


def _of_code(error: ClientError, *, in_a_role: bool) -> L1Error:
    said = error.response.get("Error", {})
    code, message = str(said.get("Code", "")), str(said.get("Message", ""))
    if code in _DENIED:
        ours = ON_THE_WAY if in_a_role and code == "AccessDeniedException" else OUR_OWN + ON_THE_WAY
        if any(policy in message for policy in ours):
            hint = "denied by a policy of the Core's own account or network, and not by the key's"
            return L1Error(L1State.UNREACHABLE, hint, cls=code)
    if code == STATE:
        if any(text in message.lower() for text in _PENDING):
            return L1Error(L1State.PENDING_DELETION, "the key will be deleted", cls=code)
        return L1Error(L1State.UNREACHABLE, "the key is in a state that does not serve", cls=code)
    row = CODES.get(code, (L1State.UNREACHABLE, "AWS did not perform the request"))
    state, detail = row
    if state is L1State.UNREACHABLE:
        detail = clock_skew.told(detail, error, of_credentials=row == NO_CREDENTIALS)
    return L1Error(state, detail, cls=name_of(error))
