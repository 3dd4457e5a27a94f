"""The port to a customer's root key: wrap and unwrap a few bytes, and say who did it.

What is wrapped is never an L2 but a nested blob that is already sealed to the region, or a canary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from kcm_core.providers.state import L1Error, L1State

BINDS_CONTEXT: Final = frozenset({"aes-gcm", "aws-kms", "google-kms"})
"""Mechanisms that authenticate the context themselves: another one opens nothing. Where a mechanism
has no such feature, the nested blob binds the same context all the same."""


@dataclass(frozen=True, slots=True)
class WrapResult:
    """What the link's record keeps: without ``mechanism`` and ``key_version`` nobody can unwrap."""

    blob: bytes
    mechanism: str
    key_version: str
    principal: str


@dataclass(frozen=True, slots=True)
class Opened:
    """What an unwrap gave, by which version of the key and in whose name."""

    plaintext: bytes | bytearray = field(repr=False)
    key_version: str
    principal: str


class L1Provider(Protocol):
    """A customer's key in one place, opened for one operation in a process that then ends.

    ``context`` is bound by the provider's own feature where the mechanism has one (GCM's AAD, an
    encryption context); the nested blob binds it everywhere else. ``mechanism`` is the word that
    ``wrap`` returned. All methods raise `L1Error`, each foreign exception mapped to exactly one
    state; one that is not known may pass through, and counts as ``unreachable``. Neither retries
    or outlives its caller's deadline by a loop of its own.
    """

    def wrap(self, plaintext: bytes | bytearray | memoryview, context: bytes) -> WrapResult:
        """Wrap up to 256 bytes with the newest version of the key."""
        ...

    def unwrap(self, blob: bytes, context: bytes, mechanism: str) -> Opened:
        """Open what ``wrap`` returned; ``invalid`` if it is not that, or of another context."""
        ...

    def facts(self) -> Mapping[str, str]:
        """Say what is known of the key, in the provider's own words (``demands``)."""
        ...


def unknown_mechanism() -> L1Error:
    """Return the error of a provider that is asked for a mechanism it does not have."""
    return L1Error(L1State.UNREACHABLE, "the provider does not know this mechanism")
