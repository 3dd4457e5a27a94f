"""Operators' requests about the roster: show it, replace it, and list what a signer has signed.

A signer that is to be retired has signed statements that must remain valid: lifts, tenants, links,
services and wrapped keys. The operator collects them from every region, and the root signs the
list. A Core reports what is in force there; the report has no effect until the root has signed it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Final

from kcm_killswitch.model.lift_pages import Page
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.registry_follower import RegistryFollower
from kcm_runtime.host import Host
from kcm_runtime.roster.follower import RosterFollower
from kcm_schemas import limits
from kcm_schemas.admin.requests import AdminRequest, Empty, PutStatement
from kcm_schemas.admin.roster import (
    EndorsementsPage,
    EndorsementsQuery,
    RosterView,
    SignedEntry,
    SignedPage,
    SignedQuery,
)
from kcm_schemas.codec import Message, decode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Lifts
from kcm_schemas.registry import RegistryEntry
from kcm_schemas.roster import Role
from kcm_schemas.signed import Signed, read_signed
from kcm_trust.endorsements import NOTHING, pages
from kcm_trust.envelopes import statement_digest
from kcm_trust.roster import entries, name_of
from kcm_trust.statements import lifted
from kcm_trust.verify import Untrusted

from kcm_core.keys.store import KeyStore

PAGE_MAX: Final = 1024
"""Statements in one answer: about 150 KB."""

LOOKED_AT_ONCE: Final = 64
"""Statements that are examined without a wait."""

PAGES_WAIT_S: Final = 3.0
"""Seconds to wait for pages that another Core of the region received: the stream brings them."""

POLL_S: Final = 0.01
"""Seconds between two checks."""


class RosterRequests:
    """Serves the noun ``roster``."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        rosters: RosterFollower,
        feed: RegistryFollower,
        lift_pages: Iterable[Page],
        store: KeyStore,
    ) -> None:
        self._me: Final = host.me
        self._clock: Final = host.clock
        self._registry: Final = replica_state.registry
        self._revocations: Final = replica_state.revocations
        self._rosters: Final = rosters
        self._feed: Final = feed
        self._lift_pages: Final = lift_pages
        self._store: Final = store

    @property
    def verbs(self) -> Mapping[str, Callable[[AdminRequest], Awaitable[Message]]]:
        """The verbs: the root's signature decides, so any operator may use them."""
        return {
            "show": self.show,
            "put": self.put,
            "endorsements": self.put_page,
            "listed": self.show_page,
            "signed": self.signed,
        }

    async def show(self, request: AdminRequest) -> Message:
        """Show the roster that is in force here."""
        decode(Empty, request.payload)
        rosters = self._me.rosters
        return RosterView(
            instance=self._me.name, roster=rosters.raw, missing=sorted(rosters.missing())
        )

    async def put_page(self, request: AdminRequest) -> Message:
        """Accept a page of an endorsement list, for every instance of the region."""
        page = decode(EndorsementsPage, request.payload)
        await self._rosters.publish(page.name, page.page, page.digests)
        return Empty()

    async def show_page(self, request: AdminRequest) -> Message:
        """Show a page of a list that the roster names; empty if it is missing or not here."""
        query = decode(EndorsementsQuery, request.payload)
        known = pages(self._me.verifier.endorsements.get(query.name, NOTHING))
        digests = known[query.page] if query.page < len(known) else b""
        return EndorsementsPage(name=query.name, page=query.page, digests=digests)

    async def put(self, request: AdminRequest) -> Message:
        """Put a roster into force, with its lists; answers when the region's stream has it.

        This also applies if the roster retires this Core, because no other Core may have it yet.

        Raises ``forbidden`` for a roster that must not replace the current one, and ``unavailable``
        while a list that it names is missing here.
        """
        raw = decode(PutStatement, request.payload).statement
        await self._lists_of(raw)
        try:
            self._me.rosters.take(raw)
        except Untrusted as error:
            raise KcmError(Code.FORBIDDEN, str(error)) from None
        self._rosters.bring()
        while not self._rosters.stored:
            if self._clock.unix_ms() >= request.deadline_ms:
                raise KcmError(Code.UNAVAILABLE, "the roster counts here, but is not stored yet")
            await asyncio.sleep(POLL_S)
        return Empty()

    async def signed(self, request: AdminRequest) -> Message:
        """List the statements of a signer that may be endorsed, in order, from a given position."""
        query = decode(SignedQuery, request.payload)
        if query.name not in map(name_of, entries(self._me.verifier.roster)):
            raise KcmError(Code.MALFORMED, f"the roster has no {query.name}; see `kcm roster show`")
        found: list[SignedEntry] = []
        known: dict[str, bytes | tuple[str, ...]] = {}
        everything: Iterable[tuple[str, bytes | tuple[str, ...]]] = chain(
            self._lifts(), self._pages(), self._objects(), self._keys(query.name)
        )
        for number, (what, key) in enumerate(everything):
            if number % LOOKED_AT_ONCE == 0:
                await asyncio.sleep(0)  # let a kill be processed
            # Searching for the name costs a fiftieth of decoding the statement.
            named = not isinstance(key, bytes) or query.name.encode() in key
            if named and what > query.after:
                known[what] = key
        for number, what in enumerate(sorted(known)):
            if number % LOOKED_AT_ONCE == 0:
                await asyncio.sleep(0)
            key = known[what]
            raw = key if isinstance(key, bytes) else await self._store.statement(key)
            entry = None if raw is None else _entry(what, raw, query.name)
            if entry is not None:
                if len(found) == PAGE_MAX:
                    return SignedPage(entries=found, more=True)
                found.append(entry)
        return SignedPage(entries=found, more=False)

    def _lifts(self) -> Iterator[tuple[str, bytes]]:
        for state in self._revocations.holds:
            if state.lift is not None:
                yield f"lift {state.hold.id.hex()}", state.lift

    def _pages(self) -> Iterator[tuple[str, bytes]]:
        for page in list(self._lift_pages):
            place = page.place
            count = len(page.ids) // limits.ID_SIZE
            what = f"lifts {place.origin} {place.prefix:02x} of {count} {page.key.hex()[2:10]}"
            yield what, page.raw

    def _objects(self) -> Iterator[tuple[str, bytes]]:
        for key in self._feed.keys:
            raw = self._feed.raw(key)
            if raw is not None:
                entry = decode(RegistryEntry, raw)
                yield " ".join(key), entry.statement
                yield f"accepted {' '.join(key)}", entry.accepted

    def _keys(self, name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The wrapped keys of the region; only Cores of this region sign them."""
        try:
            entry = self._me.verifier.instance(name)
        except Untrusted:
            return
        if (entry.role, entry.region) != (Role.CORE, self._me.region):
            return
        for tenant in self._registry.names():
            yield f"root-keys {tenant}", ("root", tenant)
            for one in self._registry.services_after(
                tenant, "", self._registry.service_count(tenant)
            ):
                key = ("service", tenant, one.service)
                yield f"service-keys {tenant} {one.service}", key

    async def _lists_of(self, raw: bytes) -> None:
        """Wait until every list that a roster names is here."""
        try:
            roster = self._me.rosters.examine(raw)
        except Untrusted as error:
            raise KcmError(Code.FORBIDDEN, str(error)) from None
        said = [(name_of(one), one.retired) for one in entries(roster) if one.retired is not None]
        until = self._clock.elapsed() + PAGES_WAIT_S
        while not all(self._rosters.has(name, retirement) for name, retirement in said):
            if self._clock.elapsed() >= until:
                raise KcmError(Code.UNAVAILABLE, "a list that the roster names is not here")
            await asyncio.sleep(POLL_S)


def _entry(what: str, raw: bytes, name: str) -> SignedEntry | None:
    """A verified statement, if ``name`` signed it."""
    statement = read_signed(raw)
    if name not in [one.signer for one in statement.signatures]:
        return None
    return SignedEntry(
        what=what, digest=statement_digest(statement), time_ms=_time_ms(what, raw, statement)
    )


def _time_ms(what: str, raw: bytes, statement: Signed) -> int:
    if what.startswith("lift "):
        return lifted(raw)[0]
    return decode(Lifts, statement.body).issued_ms if what.startswith("lifts ") else 0
