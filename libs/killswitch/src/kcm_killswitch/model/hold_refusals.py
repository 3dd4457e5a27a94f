"""The error that reports a hold to a caller: its kind, never its issuer or its reason."""

from __future__ import annotations

from typing import Final

from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Cause, Hold

_CAUSES: Final[dict[tuple[str, Cause], str]] = {
    ("tenant", "operator"): "an operator killed the tenant",
    ("link", "operator"): "an operator killed the tenant's root key",
    ("region", "operator"): "an operator took this region out of service",
    ("instance", "operator"): "an operator took this instance out of service",
    ("link", "l1"): "the customer's root key refuses: disabled, deleted or forbidden",
}
"""Why a tenant is not served, by scope and cause of a hold: an ``l1`` hold is always on a link."""

OVERTAKEN: Final = "the tenant's keys were purged while this was under way; ask again"
"""The error detail for lost keys of a tenant that no hold keeps out of service now."""


def refusal_for(hold: Hold) -> KcmError:
    """Return the error for a tenant that a hold keeps out of service here.

    Another instance may serve it if the hold is on this instance: the code is ``unavailable`` then.
    """
    elsewhere = hold.scope == "instance"
    code = Code.UNAVAILABLE if elsewhere else Code.TENANT_KILLED
    return KcmError(code, _CAUSES[hold.scope, hold.cause])


def overtaken() -> KcmError:
    """Return the error for an operation whose keys were purged, and that no hold forbids now."""
    return KcmError(Code.TENANT_UNAVAILABLE, OVERTAKEN)
