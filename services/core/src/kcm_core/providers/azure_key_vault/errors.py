"""The meaning of Azure's answers, in the one taxonomy.

Key Vault answers *403 Forbidden* for a disabled key, for a caller without the permission and for a
firewall; the inner code distinguishes them. An answer without a known inner code is no refusal, and
neither is an error of the Core's own credentials.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from azure.core import exceptions as azure
from azure.identity import CredentialUnavailableError

from kcm_core.providers import clock_skew
from kcm_core.providers.credentials import NO_CREDENTIALS
from kcm_core.providers.state import L1Error, L1State

_DISABLED: Final = (L1State.DISABLED, "the key is disabled, or not valid at this time")
_FORBIDDEN: Final = (L1State.FORBIDDEN, "the caller has no permission for this on the key")
_NETWORK: Final = (L1State.UNREACHABLE, "the vault's firewall does not let the caller through")
_BUSY: Final = (L1State.UNREACHABLE, "the vault cannot serve this at the moment")

CODES: Final[dict[str, tuple[L1State, str]]] = {
    "KeyDisabled": _DISABLED,
    "KeyExpired": _DISABLED,
    "KeyNotYetValid": _DISABLED,
    "ForbiddenByPolicy": _FORBIDDEN,
    "ForbiddenByRbac": _FORBIDDEN,
    "AccessDenied": _FORBIDDEN,
    "ForbiddenByFirewall": _NETWORK,
    "ForbiddenByConnection": _NETWORK,
    "KeyNotFound": (L1State.DELETED, "the vault has no such key"),
    "ObjectIsDeletedButRecoverable": (
        L1State.PENDING_DELETION,
        "the key is deleted, not yet purged",
    ),
    "BadParameter": (L1State.UNREACHABLE, "the vault does not understand the request"),
    "Throttled": _BUSY,
}
"""By Azure's inner code, otherwise its code. All other codes are ``unreachable``."""

CLASSES: Final[dict[type[Exception], tuple[L1State, str]]] = {
    CredentialUnavailableError: NO_CREDENTIALS,
    azure.ClientAuthenticationError: NO_CREDENTIALS,
    azure.ServiceRequestError: (L1State.UNREACHABLE, "the vault cannot be reached"),
    azure.ServiceResponseError: (L1State.UNREACHABLE, "the vault does not answer"),
}
"""By the SDK's class, for errors without an answer of the vault."""


UNWRAPPING: Final = {"BadParameter": (L1State.INVALID, "the blob does not authenticate")}
"""Codes with another meaning in the answer to ``unwrapKey``, whose value is the blob."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn the SDK's exceptions into ``L1Error``; Azure's texts are dropped."""
    try:
        yield
    except azure.AzureError as error:
        raise of(error) from None


def of(error: azure.AzureError, *, unwrapping: bool = False) -> L1Error:
    """Return the meaning of an exception of the SDK."""
    name = type(error).__name__
    status = error.status_code if isinstance(error, azure.HttpResponseError) else None
    if isinstance(error, azure.HttpResponseError) and status not in (None, 401):
        code = _code(error)
        codes = CODES | UNWRAPPING if unwrapping else CODES
        state, detail = codes.get(
            code, (L1State.UNREACHABLE, "the vault did not perform the request")
        )
        return L1Error(state, detail, cls=code or name)
    known = next((CLASSES[one] for one in type(error).__mro__ if one in CLASSES), None)
    if status == 401:
        known = NO_CREDENTIALS
    state, detail = known or (L1State.UNREACHABLE, "the vault did not perform the request")
    detail = clock_skew.told(detail, error, of_credentials=known == NO_CREDENTIALS)
    return L1Error(state, detail, cls=name)


def _code(error: azure.HttpResponseError) -> str:
    """Return the innermost code of an answer, or an empty string if it is not a vault's."""
    try:
        said = json.loads(error.response.text())["error"]  # type: ignore[union-attr]
        inner = said.get("innererror") or {}
        return str(inner.get("code") or said.get("code") or "")
    except (AttributeError, KeyError, TypeError, ValueError):
        return ""
