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


class Lasting:
    """A set of digests, 32 bytes each, in order: a hundred thousand take 3.2 MB."""

    def __init__(self, digests: Iterable[bytes] = ()) -> None:
        self._digests: Final = sorted(set(digests))

    @classmethod
    def read(cls, raw: bytes, said: Retirement) -> Lasting:
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


NOTHING: Final = Lasting()
"""Of somebody whose list is not here, or is empty."""
