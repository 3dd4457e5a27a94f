"""Pages of lifted holds: each is one signer's statement that many holds have ended.

Every reader takes the union of all pages that it accepts, so a page never has to be merged with the
page of another signer. Of the pages of one place (signer, cause, origin, first byte of the ids),
the largest one counts alone if it has the ids of the others. A signer that lost its own page may
have signed another one. Then both count, and the stream stores the larger one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Final, NamedTuple

from kcm_schemas.control import Cause, page_key

from kcm_killswitch.model import id_set as ids

FORMS_MAX: Final = 4
"""Maximum number of pages of one place that count together.

Only a signer that loses its own pages makes a second one.
"""

_PREFIXES: Final = 256
_NOTHING: Final = bytes(16)


class Place(NamedTuple):
    """The place of a page; one signer writes there."""

    cause: Cause
    origin: str
    signer: str
    prefix: int

    @property
    def group(self) -> str:
        """The cause and origin of the holds that it can end, as in ``HoldState.group``."""
        return f"{self.cause}.{self.origin}"


@dataclass(frozen=True)
class Page:
    """A verified page as it was signed; ``ids`` as in ``kcm_killswitch.model.id_set``."""

    place: Place
    ids: bytes
    raw: bytes
    issued_ms: int = 0

    @cached_property
    def key(self) -> bytes:
        """The 16-byte name of the page, ordered among the ids of holds; it has their first byte."""
        return page_key(self.place.prefix, self.raw)


class Pages:
    """All pages that count."""

    def __init__(self) -> None:
        self._forms: dict[Place, list[Page]] = {}
        self._keys: dict[int, dict[bytes, Page]] = {}
        self._digests: list[bytes] = [_NOTHING] * _PREFIXES

    def put(self, page: Page) -> bool:
        """Take a page; returns whether it counts, and adds ids that no page of its place has.

        Of two pages with the same ids, the one with the smaller bytes counts, in either order of
        arrival. If a place already has the maximum number of pages, and the new page contains none
        of them whole, it does not count: it would displace one.
        """
        known = self._forms.get(page.place, [])
        for one in known:
            more = bool(ids.without(page.ids, one.ids))
            if not more and (one.ids != page.ids or one.raw <= page.raw):
                return False
        kept = [page, *(one for one in known if ids.without(one.ids, page.ids))]
        if len(kept) > FORMS_MAX:
            return False
        kept.sort(key=lambda one: (len(one.ids), one.key), reverse=True)
        self._replace(page.place, kept)
        return True

    def drop(self, page: Page) -> None:
        """A page does not count any more."""
        kept = [one for one in self._forms.get(page.place, []) if one != page]
        self._replace(page.place, kept)

    def best(self, place: Place) -> Page | None:
        """The page that a stream stores."""
        forms = self._forms.get(place)
        return forms[0] if forms else None

    def ending(self, group: str, hold_id: bytes) -> list[Page]:
        """The pages that end a hold of this cause and origin, by time of issue."""
        here = self._keys.get(hold_id[0], {}).values()
        found = [one for one in here if one.place.group == group and ids.has(one.ids, hold_id)]
        return sorted(found, key=lambda one: (one.issued_ms, one.key))

    def own(self, place: Place) -> bytes:
        """All ids of one place."""
        return self._of(self._forms.get(place, []))

    def ids(self, group: str, prefix: int, among: Callable[[Place], bool] | None = None) -> bytes:
        """The ids that pages end, of one cause and origin, and first byte.

        With ``among``, only the ids of the best page of each place that it selects.
        """
        found = b""
        for page in self._keys.get(prefix, {}).values():
            counts = among is None or (self.best(page.place) == page and among(page.place))
            if page.place.group == group and counts:
                found = ids.union(found, page.ids)
        return found

    @property
    def places(self) -> list[Place]:
        """The places that have a page."""
        return list(self._forms)

    @property
    def digests(self) -> bytes:
        """Digests of 16 bytes, one for each first byte: equal if two readers have equal pages."""
        return b"".join(self._digests)

    def unlike(self, digests: bytes, prefix: int) -> Iterator[Page]:
        """The pages of a first byte, by key, unless their digest is the one in ``digests``."""
        if self._digests[prefix] != digests[16 * prefix : 16 * (prefix + 1)]:
            pages = self._keys.get(prefix, {})
            yield from (pages[key] for key in sorted(pages))

    def __iter__(self) -> Iterator[Page]:
        return (page for forms in self._forms.values() for page in forms)

    @staticmethod
    def _of(forms: list[Page]) -> bytes:
        found = b""
        for page in forms:
            found = ids.union(found, page.ids)
        return found

    def _replace(self, place: Place, forms: list[Page]) -> None:
        here = self._keys.setdefault(place.prefix, {})
        for one in self._forms.pop(place, []):
            del here[one.key]
        if forms:
            self._forms[place] = forms
        here.update((one.key, one) for one in forms)
        keys = b"".join(sorted(here))
        self._digests[place.prefix] = sha256(keys).digest()[:16] if keys else _NOTHING
