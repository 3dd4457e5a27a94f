"""What AWS's error codes mean, in the one taxonomy.

A refusal is only what can be nothing else. Trouble with the credentials themselves (expired, of
another account's token, wrongly signed) says nothing about the key. Nor does anything that goes
wrong while the Core's own credentials are fetched: AWS then denies a role to whoever runs the Core
(``AccessDenied``), in the very words in which it denies a customer's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from botocore import exceptions as boto
from botocore.exceptions import ClientError

from kcm_core.l1.state import L1Error, L1State

_NO_CREDENTIALS: Final = "the credentials are missing, expired or wrong"
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
        (L1State.UNREACHABLE, _NO_CREDENTIALS),
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
        (L1State.UNREACHABLE, "the key is of another kind: it has to be symmetric, to encrypt"),
    ),
    "ValidationException": (L1State.UNREACHABLE, "AWS does not understand the request"),
    "InvalidArnException": (L1State.UNREACHABLE, "the key's ARN is not one of this region"),
    "DryRunOperationException": (L1State.UNREACHABLE, "AWS did not carry out the request"),
}
"""By AWS's code. One that is not here is ``unreachable``."""

CLASSES: Final[dict[type[Exception], tuple[L1State, str]]] = {
    boto.ConnectTimeoutError: (L1State.UNREACHABLE, "AWS does not answer"),
    boto.ReadTimeoutError: (L1State.UNREACHABLE, "AWS does not answer"),
    boto.EndpointConnectionError: (L1State.UNREACHABLE, "AWS cannot be reached"),
    boto.ConnectionClosedError: (L1State.UNREACHABLE, "the connection was closed"),
    boto.SSLError: (L1State.UNREACHABLE, "the endpoint's certificate is not to be believed"),
    boto.ProxyConnectionError: (L1State.UNREACHABLE, "the proxy cannot be reached"),
    boto.NoCredentialsError: (L1State.UNREACHABLE, _NO_CREDENTIALS),
    boto.PartialCredentialsError: (L1State.UNREACHABLE, _NO_CREDENTIALS),
    boto.CredentialRetrievalError: (L1State.UNREACHABLE, _NO_CREDENTIALS),
    boto.TokenRetrievalError: (L1State.UNREACHABLE, _NO_CREDENTIALS),
    boto.ProfileNotFound: (L1State.UNREACHABLE, _NO_CREDENTIALS),
}
"""By botocore's class, where AWS said nothing. One that is not here is ``unreachable``."""

STATE: Final = "KMSInvalidStateException"
"""The one code that stands for several states, told apart by its message alone."""

_PENDING: Final = ("pending deletion", "pending replica deletion")
"""What AWS's message says of a key that will be deleted; of others it says something else."""


@contextmanager
def fetching() -> Iterator[None]:
    """Surround the fetching of the Core's own credentials: nothing there is a refusal."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody said no to the key
        code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else ""
        cls = str(code or type(error).__name__)
        raise L1Error(L1State.UNREACHABLE, _NO_CREDENTIALS, cls=cls) from None


@contextmanager
def translated() -> Iterator[None]:
    """Turn botocore's exceptions into ours; AWS's own texts are dropped."""
    try:
        yield
    except ClientError as error:
        raise _of_code(error) from None
    except boto.BotoCoreError as error:
        known = next((CLASSES[one] for one in type(error).__mro__ if one in CLASSES), None)
        state, detail = known or (L1State.UNREACHABLE, "AWS did not do what was asked")
        raise L1Error(state, detail, cls=type(error).__name__) from None


def _of_code(error: ClientError) -> L1Error:
    said = error.response.get("Error", {})
    code = str(said.get("Code", ""))
    if code == STATE:
        message = str(said.get("Message", "")).lower()
        if any(text in message for text in _PENDING):
            return L1Error(L1State.PENDING_DELETION, "the key will be deleted", cls=code)
        return L1Error(L1State.UNREACHABLE, "the key is in a state that does not serve", cls=code)
    state, detail = CODES.get(code, (L1State.UNREACHABLE, "AWS did not do what was asked"))
    return L1Error(state, detail, cls=code or type(error).__name__)
