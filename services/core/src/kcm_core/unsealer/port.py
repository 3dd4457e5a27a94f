"""What the Core's service layer asks of an unsealer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kcm_core.providers.requirements import Facts
from kcm_core.providers.state import L1State


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A nested blob or canary under the customer's key: what the link's record keeps."""

    blob: bytes
    mechanism: str
    key_version: str
    principal: str


@dataclass(frozen=True, slots=True)
class Opened:
    """Which version of the key opened a blob, in whose name; the plaintext went where asked."""

    key_version: str
    principal: str


@dataclass(frozen=True, slots=True)
class Probe:
    """A canary that opened: ``state`` is always ``enabled``, anything else is raised."""

    state: L1State
    key_version: str
    principal: str


class UnsealerPort(Protocol):
    """Asks a customer's key, in another process, within a deadline.

    All raise `kcm_core.providers.state.L1Error` and nothing else (but cancellation): the state says
    whether somebody refused. Calls of one L1 take turns, for which a call may have to wait a minute
    (``turns``). ``deadline_s`` counts seconds from its turn on, waiting for a free child included;
    when it has passed, the answer is ``unreachable``. ``context`` is at most 4 KiB.
    """

    async def wrap(
        self,
        uri: str,
        plaintext: bytes | bytearray | memoryview,
        context: bytes,
        *,
        deadline_s: float,
    ) -> Wrapped:
        """Wrap 1 to 256 bytes, and open the result again before it is believed."""
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
    ) -> Opened:
        """Open a blob into ``out``, whose length must be the plaintext's; zeros on any failure."""
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
        """Open a canary where nobody sees it, and compare its SHA-256 with ``digest``."""
        ...

    async def inspect(self, uri: str, *, deadline_s: float) -> Facts:
        """Say what the provider says of the key, in text that is safe to show.

        Uses the key for nothing. Who may use it need not be allowed to look: a refusal of this is
        no refusal of the key.
        """
        ...
