"""Pages of a list: read to its end, or up to a number of rows.

A page begins after the last row of the previous one. Rows that are added or removed in the meantime
therefore neither repeat nor hide another row.
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
"""Gets after each page the number of rows so far, and of all rows (0: not known)."""


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """The rows of one reply, in the order of their names or ids."""

    rows: Sequence[R]
    more: bool
    total: int = 0


def just_before(name: str) -> str:
    """Return the value of ``after`` for which the first row is ``name``, if that row exists.

    Names have at most 63 characters of -, 0-9 and a-z, in this order.
    """
    alphabet = "-0123456789abcdefghijklmnopqrstuvwxyz"
    rest, last = name[:-1], alphabet.index(name[-1])
    return rest if last == 0 else (rest + alphabet[last - 1]).ljust(NAME_MAX, alphabet[-1])


def silent(done: int, total: int) -> None:
    """Ignore the progress."""


NAME_MAX: Final = 63
"""Characters of a name."""

ROWS: Final = limits.PAGE_ROWS_MAX
"""Rows of one request."""


async def follow(
    ask: Callable[[C, int], Awaitable[Page[R]]],
    place: Callable[[R], C],
    after: C,
    limit: int | None = None,
    on_page: OnPage = silent,
) -> tuple[list[R], int]:
    """Return all rows after ``after``, or the first ``limit`` of them, and the number of all rows.

    ``ask`` gets the value after which a page begins and its maximum number of rows. ``place``
    returns that value for a row. Raises ``UntrustedReply`` for a page that does not continue after
    the previous one, because such a list could be endless.
    """
    found: list[R] = []
    while True:
        page = await ask(after, ROWS if limit is None else min(ROWS, limit - len(found)))
        for row in page.rows:
            if place(row) <= after:
                raise UntrustedReply("a page of a list does not continue where the last one ended")
            after = place(row)
        found += page.rows
        on_page(len(found), page.total)
        if not page.more or len(found) == limit:
            return found, max(page.total, len(found))
        if not page.rows:
            raise UntrustedReply("a page of a list is empty, but more pages are announced")
