"""The unsealer's interface for the rest of the Core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kcm_core.providers.requirements import Facts
from kcm_core.providers.state import L1State


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A nested blob or canary, wrapped under the customer's key, with what unwrapping it needs."""

    blob: bytes
    mechanism: str
    key_version: str
    principal: str


@dataclass(frozen=True, slots=True)
class UnsealResult:
    """The version of the key that unwrapped a blob, and the principal that used it."""

    key_version: str
    principal: str


@dataclass(frozen=True, slots=True)
class Probe:
    """A canary that unwrapped: ``state`` is always ``enabled``, everything else is raised."""

    state: L1State
    key_version: str
    principal: str


class UnsealerPort(Protocol):
    """Calls a customer's key, in another process, with a deadline.

    All methods raise only `kcm_core.providers.state.L1Error` (and cancellation): its state says
    whether the key was explicitly denied. Calls to one L1 take turns, for which a call may wait a
    minute (``key_gate``). ``deadline_s`` counts seconds from its turn on, the wait for a free child
    included; after it the state is ``unreachable``. ``context`` has at most 4 KiB.
    """

    async def wrap(
        self,
        uri: str,
        plaintext: bytes | bytearray | memoryview,
        context: bytes,
        *,
        deadline_s: float,
    ) -> Wrapped:
        """Wrap 1 to 256 bytes, and unwrap the result before it is accepted."""
        ...

    async def unwrap_into(
        self,
        uri: str,
        blob: bytes,
        context: bytes,
        mechanism: str,
        out: memoryview,
        *,
        deadline_s: float,
    ) -> UnsealResult:
        """Unwrap a blob into ``out``, which has the plaintext's length; zeros on any failure."""
        ...

    async def probe(
        self,
        uri: str,
        blob: bytes,
        context: bytes,
        mechanism: str,
        digest: bytes,
        *,
        deadline_s: float,
    ) -> Probe:
        """Unwrap a canary in the child only, and compare its SHA-256 with ``digest``."""
        ...

    async def inspect(self, uri: str, *, deadline_s: float) -> Facts:
        """Return the provider's description of the key, in text that is safe to show.

        It does not use the key. A principal that may use a key need not be allowed to describe it,
        so a denial of this call is no denial of the key.
        """
        ...
