"""What lasts of somebody who retired: the digests of statements that the root has seen and lists.

The roster commits to the list, so the list needs no signature, and may come from anybody. While it
is not here, nothing of it counts: tenants whose lift is on it stay dark until it is.
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
"""Pages of one list: 131,072 statements, some ten years of an operator's work."""

STAGED_MAX: Final = 2 * PAGES_MAX * PAGE_BYTES
"""Bytes of pages that are kept before a roster names their list: anybody could send them."""


class Endorsements:
    """A set of digests, 32 bytes each, in order: a hundred thousand take 3.2 MB."""

    def __init__(self, digests: Iterable[bytes] = ()) -> None:
        self._digests: Final = sorted(set(digests))

    @classmethod
    def read(cls, raw: bytes, said: Retirement) -> Endorsements:
        """Read a list as it travels; raises ``ValueError`` unless it is the one that was signed."""
        if len(raw) != said.count * _SIZE or sha256(raw).digest() != said.lasting:
            raise ValueError("not the list that the roster names")
        return cls(raw[at : at + _SIZE] for at in range(0, len(raw), _SIZE))

    def raw(self) -> bytes:
        """The list as it travels."""
        return b"".join(self._digests)

    def retirement(self) -> Retirement:
        """What a roster says of this list."""
        return Retirement(lasting=sha256(self.raw()).digest(), count=len(self._digests))

    def __contains__(self, digest: bytes) -> bool:
        at = bisect_left(self._digests, digest)
        return at < len(self._digests) and self._digests[at] == digest

    def __len__(self) -> int:
        return len(self._digests)


class Staged:
    """Pages of lists that came before all of their list was here. Nothing in them counts."""

    def __init__(self) -> None:
        self._pages: dict[tuple[str, int], bytes] = {}

    def take(self, name: str, page: int, raw: bytes) -> None:
        """Keep a page, and as many of the others as there is room for."""
        if not 0 < len(raw) <= PAGE_BYTES or len(raw) % _SIZE or not 0 <= page < PAGES_MAX:
            return
        self._pages.pop((name, page), None)
        self._pages[name, page] = raw
        while sum(map(len, self._pages.values())) > STAGED_MAX:
            del self._pages[next(iter(self._pages))]

    def whole(self, name: str, said: Retirement) -> bytes | None:
        """The list that a roster names, if all of it is here."""
        parts = [self._pages.get((name, page), b"") for page in range(page_count(said))]
        raw = b"".join(parts)
        try:
            Endorsements.read(raw, said)
        except ValueError:
            return None
        return raw

    def forget(self, name: str) -> None:
        """The list of this name is not waited for any more."""
        for key in [one for one in self._pages if one[0] == name]:
            del self._pages[key]


def page_count(said: Retirement) -> int:
    """Into how many pages a list is cut."""
    return min(-(-said.count * _SIZE // PAGE_BYTES), PAGES_MAX)


def pages(lasting: Endorsements) -> list[bytes]:
    """A list as it travels in messages."""
    raw = lasting.raw()
    return [raw[at : at + PAGE_BYTES] for at in range(0, len(raw), PAGE_BYTES)]


NOTHING: Final = Endorsements()
"""Of somebody whose list is not here, or is empty."""
