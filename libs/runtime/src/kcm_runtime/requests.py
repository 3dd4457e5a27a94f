"""Replay protection for signed or sealed requests: each has a deadline, and is recorded once.

A broker, or an attacker that listens there, can send the same bytes again. The deadline rejects
requests that are too old; until then the instance that served one remembers it. Memory is bounded
for each signer, so that no signer evicts the requests of another one. Only requests whose signer is
verified may be remembered.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError

V = TypeVar("V")


def check_deadline(deadline_ms: int, now_ms: int) -> None:
    """Raise ``deadline_exceeded`` for a past deadline, ``malformed`` for one too far ahead."""
    if now_ms >= deadline_ms:
        raise KcmError(Code.DEADLINE_EXCEEDED)
    if deadline_ms > now_ms + limits.DEADLINE_MAX_MS:
        # A fixed text: rejections are counted by their texts, and the sender chooses the deadline.
        raise KcmError(
            Code.MALFORMED, f"the deadline is more than {limits.DEADLINE_MAX_MS} ms ahead"
        )


@dataclass(slots=True)
class _OfSigner(Generic[V]):
    found: dict[bytes, V] = field(default_factory=dict)
    ends: list[tuple[int, bytes]] = field(default_factory=list)
    """A heap of deadlines in Unix milliseconds, each with its request."""

    def drop(self) -> None:
        del self.found[heapq.heappop(self.ends)[1]]


class SeenRequests(Generic[V]):
    """The outcome of each signer's requests, until their deadlines.

    The key of a request is bytes that its signature or seal covers. The caller has checked its
    deadline.
    """

    def __init__(self, most: int) -> None:
        """At most ``most`` requests of one signer are remembered."""
        self._most: Final = most
        self._signers: Final[dict[str, _OfSigner[V]]] = {}
        """Verified names: no more than rosters have."""

    def get(self, signer: str, request: bytes) -> V | None:
        """Return the outcome of a request, or ``None`` if it is not known here."""
        known = self._signers.get(signer)
        return None if known is None else known.found.get(request)

    def full(self, signer: str, now_ms: int) -> bool:
        """Whether one more request of a signer would evict one whose deadline is not over."""
        known = self._signers.get(signer)
        if known is None:
            return False
        while known.ends and known.ends[0][0] <= now_ms:
            known.drop()
        return len(known.ends) >= self._most

    def add(self, signer: str, request: bytes, deadline_ms: int, now_ms: int, made: V) -> None:
        """Remember an outcome; at the bound, the signer's request with the first deadline goes."""
        full = self.full(signer, now_ms)
        known = self._signers.setdefault(signer, _OfSigner())
        if request not in known.found:
            if full:
                known.drop()
            heapq.heappush(known.ends, (deadline_ms, request))
        known.found[request] = made
