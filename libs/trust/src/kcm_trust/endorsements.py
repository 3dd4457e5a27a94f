"""Endorsements: the digests of a retired signer's statements that the root has seen and lists.

The roster commits to the list, so the list needs no signature and can come from any sender. Until
the list arrives none of it counts: tenants whose lift is on it stay out of service.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from kcm_schemas.roster import Retirement

_SIZE: Final = 32

PAGE_BYTES: Final = 512 * 1024
"""Bytes of one page of a list: 16,384 statements, in one message of the stream."""

PAGES_MAX: Final = 8
"""Pages of one list: 131,072 statements, about ten years of an operator's work."""

STAGED_MAX: Final = 2 * PAGES_MAX * PAGE_BYTES
"""Bytes of pages that are kept before a roster commits to their list: any client can send them."""


class Endorsements:
    """A set of digests, 32 bytes each, in order: 100,000 of them take 3.2 MB."""

    def __init__(self, digests: Iterable[bytes] = ()) -> None:
        self._digests: Final = sorted(set(digests))

    @classmethod
    def read(cls, raw: bytes, said: Retirement) -> Endorsements:
        """Read a list in its wire form; raises ``ValueError`` unless the roster commits to it."""
        if len(raw) != said.count * _SIZE or sha256(raw).digest() != said.endorsements:
            raise ValueError("not the list to which the roster commits")
        return cls(raw[at : at + _SIZE] for at in range(0, len(raw), _SIZE))

    def raw(self) -> bytes:
        """Return the list in its wire form."""
        return b"".join(self._digests)

    def retirement(self) -> Retirement:
        """Return a roster's commitment to this list."""
        return Retirement(endorsements=sha256(self.raw()).digest(), count=len(self._digests))

    def __contains__(self, digest: bytes) -> bool:
        at = bisect_left(self._digests, digest)
        return at < len(self._digests) and self._digests[at] == digest

    def __len__(self) -> int:
        return len(self._digests)


class StagedEndorsements:
    """Pages of lists of which other pages are missing. Nothing in them counts."""

    def __init__(self) -> None:
        self._pages: dict[tuple[str, int], bytes] = {}

    @property
    def size(self) -> int:
        """Bytes of the pages that are kept: ``STAGED_MAX`` at most."""
        return sum(map(len, self._pages.values()))

    def take(self, name: str, page: int, raw: bytes) -> None:
        """Keep a page, and as many of the other pages as there is room for."""
        if not 0 < len(raw) <= PAGE_BYTES or len(raw) % _SIZE or not 0 <= page < PAGES_MAX:
            return
        self._pages.pop((name, page), None)
        self._pages[name, page] = raw
        while self.size > STAGED_MAX:
            del self._pages[next(iter(self._pages))]

    def whole(self, name: str, said: Retirement) -> bytes | None:
        """Return the list to which a roster commits, or ``None`` while pages are missing."""
        parts = [self._pages.get((name, page), b"") for page in range(page_count(said))]
        raw = b"".join(parts)
        try:
            Endorsements.read(raw, said)
        except ValueError:
            return None
        return raw

    def forget(self, name: str) -> None:
        """Drop the pages of this name's list."""
        for key in [one for one in self._pages if one[0] == name]:
            del self._pages[key]


def page_count(said: Retirement) -> int:
    """Return the number of pages of a list."""
    return min(-(-said.count * _SIZE // PAGE_BYTES), PAGES_MAX)


def pages(endorsements: Endorsements) -> list[bytes]:
    """Return a list as the pages in which it is sent."""
    raw = endorsements.raw()
    return [raw[at : at + PAGE_BYTES] for at in range(0, len(raw), PAGE_BYTES)]


NOTHING: Final = Endorsements()
"""The endorsements of a signer whose list is unknown or empty."""
