"""Many ids of 16 bytes in order, as one byte string: a million take 16 MB instead of 160 MB.

All functions take and return such strings, and change nothing in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from kcm_schemas import limits

_SIZE: Final = limits.ID_SIZE


def has(ids: bytes, one: bytes) -> bool:
    """Whether an id is in the set: a binary search, about twelve steps for four thousand ids."""
    low, high = 0, len(ids) // _SIZE
    while low < high:
        middle = (low + high) // 2
        found = ids[middle * _SIZE : (middle + 1) * _SIZE]
        if found == one:
            return True
        if found < one:
            low = middle + 1
        else:
            high = middle
    return False


def each(ids: bytes) -> Iterator[bytes]:
    """The ids, in order."""
    return (ids[at : at + _SIZE] for at in range(0, len(ids), _SIZE))


def of(them: Iterable[bytes]) -> bytes:
    """Ids in any order, with duplicates, as one string."""
    return b"".join(sorted(set(them)))


def union(left: bytes, right: bytes) -> bytes:
    """The ids of both sets."""
    if not left or not right or left == right:
        return left or right
    return of([*each(left), *each(right)])


def without(left: bytes, right: bytes) -> bytes:
    """The ids of ``left`` that are not in ``right``."""
    if not left or not right:
        return left
    taken = set(each(right))
    return b"".join(one for one in each(left) if one not in taken)
