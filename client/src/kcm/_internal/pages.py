"""Following the pages of a list, to its end or for as many rows as are wanted.

A page begins behind the last row of the one before, so what is added or taken away meanwhile
neither repeats a row nor hides one that was there all the time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from kcm_schemas import limits

from kcm.errors import UntrustedReply

R = TypeVar("R")
C = TypeVar("C", str, bytes)

OnPage = Callable[[int, int], None]
"""Told after each page: the rows so far, and how many there are in all (0: not known)."""


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Rows of one answer, in the order of their names or ids."""

    rows: Sequence[R]
    more: bool
    total: int = 0


def just_before(name: str) -> str:
    """Where a page begins whose first row is this name, when there is one.

    Names have at most 63 characters of -, 0-9 and a-z, in this order.
    """
    alphabet = "-0123456789abcdefghijklmnopqrstuvwxyz"
    rest, last = name[:-1], alphabet.index(name[-1])
    return rest if last == 0 else (rest + alphabet[last - 1]).ljust(NAME_MAX, alphabet[-1])


def silent(done: int, total: int) -> None:
    """An ``OnPage`` that tells nobody."""


NAME_MAX: Final = 63
"""Characters of a name."""

ROWS: Final = limits.PAGE_ROWS_MAX
"""Rows asked for at once."""


async def follow(
    ask: Callable[[C, int], Awaitable[Page[R]]],
    place: Callable[[R], C],
    after: C,
    limit: int | None = None,
    on_page: OnPage = silent,
) -> tuple[list[R], int]:
    """Every row behind ``after``, or the first ``limit`` of them, and how many there are in all.

    ``ask`` gets where a page begins and how many rows it may have; ``place`` says where a row is.
    Raises ``UntrustedReply`` when a page does not go on where it should: it would never end.
    """
    found: list[R] = []
    while True:
        page = await ask(after, ROWS if limit is None else min(ROWS, limit - len(found)))
        for row in page.rows:
            if place(row) <= after:
                raise UntrustedReply("a page of a list does not go on where the last one ended")
            after = place(row)
        found += page.rows
        on_page(len(found), page.total)
        if not page.more or len(found) == limit:
            return found, max(page.total, len(found))
        if not page.rows:
            raise UntrustedReply("a page of a list is empty, and says that more follows")
