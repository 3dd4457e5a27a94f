"""The port to a customer's root key: wrap and unwrap a few bytes, and report the principal.

The wrapped value is never an L2: it is a nested blob that is already sealed to the region, or a
canary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from kcm_core.providers.state import L1Error, L1State

BINDS_CONTEXT: Final = frozenset({"aes-gcm", "aws-kms", "google-kms"})
"""Mechanisms that authenticate the context themselves: with another context, unwrapping fails. For
all other mechanisms the nested blob binds the same context."""


@dataclass(frozen=True, slots=True)
class WrapResult:
    """A wrapped value; unwrapping it needs ``mechanism`` and ``key_version``."""

    blob: bytes
    mechanism: str
    key_version: str
    principal: str


@dataclass(frozen=True, slots=True)
class UnwrapResult:
    """An unwrapped value, the version of the key, and the principal that used it."""

    plaintext: bytes | bytearray = field(repr=False)
    key_version: str
    principal: str


class L1Provider(Protocol):
    """A customer's key at one provider, opened for one operation in a process that then ends.

    ``context`` is bound by the provider's own feature if the mechanism has one (GCM's AAD, an
    encryption context), and otherwise by the nested blob. ``mechanism`` is the word that ``wrap``
    returned. All methods raise `L1Error`, with each known exception mapped to exactly one state; an
    unknown one may pass through and counts as ``unreachable``. No method retries, or exceeds its
    caller's deadline by its own loop.
    """

    def wrap(self, plaintext: bytes | bytearray | memoryview, context: bytes) -> WrapResult:
        """Wrap up to 256 bytes with the newest version of the key."""
        ...

    def unwrap(self, blob: bytes, context: bytes, mechanism: str) -> UnwrapResult:
        """Unwrap a value of ``wrap``; ``invalid`` if it is another one or has another context."""
        ...

    def facts(self) -> Mapping[str, str]:
        """Return the provider's description of the key, in its own words (``requirements``)."""
        ...


def unknown_mechanism() -> L1Error:
    """Return the error of a provider that is asked for a mechanism it does not have."""
    return L1Error(L1State.UNREACHABLE, "the provider does not know this mechanism")
