"""What Azure's answers mean, in the one taxonomy.

Key Vault says *403 Forbidden* for a key that is disabled, for a caller without the permission and
for a firewall alike; the inner code tells them apart. Of what has no inner code that we know,
nothing is a refusal, and nothing of what goes wrong with the Core's own credentials.
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
"""By Azure's inner code, else its code. One that is not here is ``unreachable``."""

CLASSES: Final[dict[type[Exception], tuple[L1State, str]]] = {
    CredentialUnavailableError: NO_CREDENTIALS,
    azure.ClientAuthenticationError: NO_CREDENTIALS,
    azure.ServiceRequestError: (L1State.UNREACHABLE, "the vault cannot be reached"),
    azure.ServiceResponseError: (L1State.UNREACHABLE, "the vault does not answer"),
}
"""By the SDK's class, where the vault said nothing."""


UNWRAPPING: Final = {"BadParameter": (L1State.INVALID, "the blob does not authenticate")}
"""What means something else in the answer to ``unwrapKey``, where the value given is the blob."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn the SDK's exceptions into ours; Azure's own texts are dropped."""
    try:
        yield
    except azure.AzureError as error:
        raise of(error) from None


def of(error: azure.AzureError, *, unwrapping: bool = False) -> L1Error:
    """What one of the SDK's exceptions means."""
    name = type(error).__name__
    status = error.status_code if isinstance(error, azure.HttpResponseError) else None
    if isinstance(error, azure.HttpResponseError) and status not in (None, 401):
        code = _code(error)
        codes = CODES | UNWRAPPING if unwrapping else CODES
        state, detail = codes.get(
            code, (L1State.UNREACHABLE, "the vault did not do what was asked")
        )
        return L1Error(state, detail, cls=code or name)
    known = next((CLASSES[one] for one in type(error).__mro__ if one in CLASSES), None)
    if status == 401:
        known = NO_CREDENTIALS
    state, detail = known or (L1State.UNREACHABLE, "the vault did not do what was asked")
    detail = clock_skew.told(detail, error, of_credentials=known == NO_CREDENTIALS)
    return L1Error(state, detail, cls=name)


def _code(error: azure.HttpResponseError) -> str:
    """The innermost code of an answer; empty for what is no answer of a vault."""
    try:
        said = json.loads(error.response.text())["error"]  # type: ignore[union-attr]
        inner = said.get("innererror") or {}
        return str(inner.get("code") or said.get("code") or "")
    except (AttributeError, KeyError, TypeError, ValueError):
        return ""
