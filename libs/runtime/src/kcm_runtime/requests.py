"""Requests that are signed or sealed: each is for a time, and is recorded once.

A broker, or whoever listens there, can send the same bytes again. What is too old is refused by its
deadline; until then whoever served it remembers it. Memory is bounded by signer, so nobody pushes
out what another one asked, and only what the signer is known to have made may be remembered.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError

V = TypeVar("V")


def check_deadline(deadline_ms: int, now_ms: int) -> None:
    """Raise ``deadline_exceeded`` when it has passed, ``malformed`` when it is too far away."""
    if now_ms >= deadline_ms:
        raise KcmError(Code.DEADLINE_EXCEEDED)
    if deadline_ms > now_ms + limits.DEADLINE_MAX_MS:
        raise KcmError(Code.MALFORMED, "the deadline is more than a minute away")


@dataclass(slots=True)
class _OfSigner(Generic[V]):
    found: dict[bytes, V] = field(default_factory=dict)
    ends: list[tuple[int, bytes]] = field(default_factory=list)
    """A heap of deadlines in Unix milliseconds, each with its request."""

    def drop(self) -> None:
        del self.found[heapq.heappop(self.ends)[1]]


class Asked(Generic[V]):
    """What was made of each signer's requests, until their deadlines.

    A request is named by bytes that its signature or seal covers. Whoever asks here has checked its
    deadline.
    """

    def __init__(self, most: int) -> None:
        """``most`` requests of one signer are remembered."""
        self._most: Final = most
        self._signers: Final[dict[str, _OfSigner[V]]] = {}
        """Names that were believed: no more than rosters have."""

    def get(self, signer: str, request: bytes) -> V | None:
        """What was made of a request; ``None``: it is not known here."""
        known = self._signers.get(signer)
        return None if known is None else known.found.get(request)

    def full(self, signer: str, now_ms: int) -> bool:
        """Whether one more of a signer's requests would push out one that has not ended."""
        known = self._signers.get(signer)
        if known is None:
            return False
        while known.ends and known.ends[0][0] <= now_ms:
            known.drop()
        return len(known.ends) >= self._most

    def add(self, signer: str, request: bytes, deadline_ms: int, now_ms: int, made: V) -> None:
        """Remember it; at the bound, the signer's request that ends first is forgotten."""
        full = self.full(signer, now_ms)
        known = self._signers.setdefault(signer, _OfSigner())
        if request not in known.found:
            if full:
                known.drop()
            heapq.heappush(known.ends, (deadline_ms, request))
        known.found[request] = made
