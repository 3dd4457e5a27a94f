"""A context as pairs of text, for providers that authenticate such pairs.

A customer reads them in audit logs, and can grant a key for a single tenant. The context of a
tenant root becomes three pairs with its names; any other bytes become one pair in hexadecimal.
Different bytes never become the same pairs.
"""

from __future__ import annotations

from typing import Final

from kcm_schemas.labels import L1_CONTEXT

TENANT: Final = "kcm-tenant"
REGION: Final = "kcm-region"
VERSION: Final = "kcm-root-version"
OTHER: Final = "kcm-context"

_LENGTH: Final = 2
_NAME_MAX: Final = 255
_PARTS: Final = 4


def as_pairs(context: bytes) -> dict[str, str]:
    """Return the pairs of a context."""
    parts = _split(context)
    if len(parts) == _PARTS and parts[0] == L1_CONTEXT.name.encode() and len(parts[3]) == 4:
        tenant, region = _name(parts[1]), _name(parts[2])
        if tenant and region:
            version = int.from_bytes(parts[3], "big")
            return {TENANT: tenant, REGION: region, VERSION: str(version)}
    return {OTHER: context.hex()}


def _split(context: bytes) -> list[bytes]:
    parts: list[bytes] = []
    at = 0
    while at < len(context):
        size = int.from_bytes(context[at : at + _LENGTH], "big")
        end = at + _LENGTH + size
        if at + _LENGTH > len(context) or end > len(context):
            return []
        parts.append(context[at + _LENGTH : end])
        at = end
    return parts


def _name(part: bytes) -> str:
    """Return a name that every provider accepts unchanged, or an empty string."""
    try:
        text = part.decode("ascii")
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() and " " not in text and len(text) <= _NAME_MAX else ""
