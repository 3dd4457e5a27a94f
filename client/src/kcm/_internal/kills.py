"""The operator's side of the kill switch: place a hold, watch until it is complete, lift it.

The id of a hold is chosen here, so a repetition in any region is harmless. The hold is placed
through the first region that replies, and again until a region's signed reply says that it is
durable. From then on it is in force, whatever happens to this program. It is *complete* only when a
Core states that every registered incarnation has purged or its lease has ended.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from kcm_schemas import limits
from kcm_schemas.admin.holds import HoldExport, HoldPage, HoldView
from kcm_schemas.admin.kill_status import HoldStatus
from kcm_schemas.codes import Code
from kcm_schemas.control import Scope
from kcm_trust.verify import Untrusted

from kcm._internal import statements
from kcm._internal.admin import Admin
from kcm._internal.client_context import NotLetIn
from kcm._internal.rpc import BrokerRefused, backoff_s
from kcm._internal.staggered import first
from kcm.errors import (
    Forbidden,
    Malformed,
    ServiceError,
    Unavailable,
    UnknownHold,
    UntrustedReply,
    error_for,
)

ASK_S: Final = 4.0
"""Seconds for one region's reply: longer than that region waits for other regions."""

POLL_S: Final = 0.25
"""Seconds between two requests for the status of a hold."""

AGAIN_S: Final = 1.0
"""Seconds after which a watched hold that is not complete is placed again, because a broadcast or a
receipt may have been lost."""

REFUSED_MAX: Final = 3
"""Refusals to place a watched hold again, after which the client only looks."""

_FIRST: Final = bytes(limits.ID_SIZE)
"""The id before all others: a list of holds begins after it."""

_DIGITS: Final = re.compile(f"[0-9a-f]{{1,{2 * limits.ID_SIZE}}}")

TIMEOUT_S: Final = 90.0
"""Seconds to wait for completeness: above the longest lease and peer lease (60 s) and a
deadline."""


OnFailure = Callable[[ServiceError], None]
"""Gets the error of each attempt that failed and will be repeated."""


def silent(_: ServiceError) -> None:
    """Ignore the failure."""


@dataclass(frozen=True, slots=True)
class NewHold:
    """A signed hold that was not sent yet."""

    id: bytes
    scope: Scope
    target: str
    raw: bytes


class Kills:
    """Places, watches and lifts holds through any region that replies."""

    def __init__(self, admin: Admin, regions: Sequence[str]) -> None:
        """``regions`` are asked in this order; the first one is the origin of new holds."""
        self._admin: Final = admin
        self._regions: Final = list(regions)
        self._around: Final = admin.around

    def ask_last(self, region: str) -> None:
        """Ask a region only if no other one replies."""
        self._regions.remove(region)
        self._regions.append(region)

    def make(self, scope: Scope, target: str, reason: str) -> NewHold:
        """Sign a hold. Nothing is sent."""
        hold_id, raw = statements.hold(
            self._admin.identity,
            scope=scope,
            target=target,
            origin=self._regions[0],
            issued_ms=self._around.clock.unix_ms(),
            reason=reason,
            salt=self._admin.randomness.public(limits.ID_SIZE),
        )
        return NewHold(hold_id, scope, target, raw)

    def placed(self, view: HoldView) -> NewHold:
        """Return a hold that a Core shows, to be placed again; raises ``UntrustedReply``.

        The statement is verified: it is sent in the operator's name.
        """
        try:
            held = self._admin.verifier.hold(view.raw).hold
        except Untrusted as error:
            raise UntrustedReply(f"the hold is not what its signer signed: {error}") from None
        if (held.id, held.scope, held.target) != (view.hold_id, view.scope, view.target):
            raise UntrustedReply("a Core's reply is about another hold")
        return NewHold(view.hold_id, view.scope, view.target, view.raw)

    async def place(
        self, hold: NewHold, until: float, on_failure: OnFailure = silent
    ) -> HoldStatus:
        """Place a hold, repeatedly until it is durable in a region.

        Raises ``ServiceError``: a refusal, or ``unavailable`` after ``until`` (by the clock's
        ``elapsed``). The hold may be in force even then. Raises ``NotLetIn`` at once if no region's
        broker accepts the context.
        """
        status = await self._put(hold.raw, until, on_failure)
        if (status.scope, status.target, status.cause) != (hold.scope, hold.target, "operator"):
            raise UntrustedReply("a Core's reply is about another hold")
        return _about(status, hold.id)

    async def watch(
        self,
        hold_id: bytes,
        until: float,
        hold: NewHold | None = None,
        *,
        lifts: bool = False,
        lifted: bool = False,
    ) -> AsyncIterator[HoldStatus]:
        """Yield the status of a hold until it is complete or lifted, or until the time is over.

        With ``lifts``, a lift is watched until it is complete, too. ``lifted``: a lift is known
        already. The status of a region that does not have a known lift yet is left out.

        A request for the status changes nothing. With ``hold``, it is also placed again every
        ``AGAIN_S`` seconds, so that it reaches instances and Cores that missed a message. An
        operator without the right to place holds only gets the status. Temporary failures are
        ignored; a refusal raises ``ServiceError``.
        """
        placed, refused = self._around.clock.elapsed(), 0
        while True:
            wait = POLL_S
            try:
                if hold is not None and self._around.clock.elapsed() >= placed + AGAIN_S:
                    placed = self._around.clock.elapsed()
                    try:
                        status = await self._again(hold, until)
                    except Forbidden:
                        # One region may refuse although others would not; three times is enough.
                        refused += 1
                        hold = None if refused >= REFUSED_MAX else hold
                        continue
                else:
                    status = await self.status(hold_id, until)
            except ServiceError as error:
                if not error.retryable:
                    raise
            else:
                lifted = lifted or status.lifted
                if status.lifted == lifted:
                    yield status
                    if status.complete or (lifted and not lifts):
                        return
                hold = None if lifted else hold
            if self._around.clock.elapsed() + wait >= until:
                return
            await self._around.sleep(wait)

    async def _again(self, hold: NewHold, until: float) -> HoldStatus:
        """Place a hold again, through the first region that replies."""
        return _about(await self._first_put(hold.raw, until), hold.id)

    async def status(self, hold_id: bytes, until: float) -> HoldStatus:
        """Return the status of a hold from any region that replies and knows it.

        Raises ``ServiceError``; ``unavailable`` if no region that replies knows it (yet).
        """

        async def ask(region: str) -> HoldStatus:
            try:
                return await self._admin.hold_status(region, hold_id, deadline_s=self._time(until))
            except UnknownHold:
                # An isolated region may not know the hold: ask the others, and this one again.
                raise error_for(Code.UNAVAILABLE, "the region does not know the hold") from None

        region, status = await first(self._regions, ask)
        self._prefer(region)
        return _about(status, hold_id)

    async def listing(self, *, everything: bool = False) -> list[HoldView]:
        """Return the holds in force, or with ``everything`` lifted ones too, oldest first.

        They are of the first region that replies, read page by page.
        """
        return (await self.listing_of(everything=everything))[1]

    async def listing_of(self, *, everything: bool = False) -> tuple[str, list[HoldView]]:
        """Return the same as ``listing``, with the region that replied."""

        async def ask(region: str) -> HoldPage:
            return await self._admin.holds(region, _FIRST, everything=everything)

        region, page = await first(self._regions, ask)
        found = _rows_after(_FIRST, page)
        while page.more:
            after = found[-1].hold_id
            page = await self._admin.holds(region, after, everything=everything)
            found += _rows_after(after, page)
        return region, sorted(found, key=lambda view: (view.issued_ms, view.hold_id))

    async def find(self, prefix: str) -> HoldView:
        """Return the only hold whose hexadecimal id begins with ``prefix``, from any region.

        Raises ``unknown_hold``, and ``malformed`` for a bad prefix or one of several holds.
        """
        if not _DIGITS.fullmatch(prefix):
            raise Malformed("a hold's id has 1 to 32 hexadecimal digits")

        async def ask(region: str) -> list[HoldView]:
            found = (await self._admin.matching_holds(region, prefix)).holds
            if not found:
                raise UnknownHold(f"no hold's id begins with {prefix}")
            return found

        found = (await first(self._regions, ask))[1]
        if len(found) != 1:
            raise Malformed(f"the ids of several holds begin with {prefix}")
        return found[0]

    async def export(self, hold_id: bytes) -> tuple[str, HoldExport]:
        """Return a region that knows a hold, and the hold's signed evidence from there.

        It is the first one with the result of the kill: regions get it one after the other. If none
        has it, it is the first region that replied.
        """
        without: list[tuple[str, HoldExport]] = []

        async def ask(region: str) -> HoldExport:
            found = await self._admin.export_hold(region, hold_id)
            if found.hold_id != hold_id:
                raise UntrustedReply("a Core's reply is about another hold")
            if not found.result:
                without.append((region, found))
                raise Unavailable("it has no result of this kill yet")
            return found

        try:
            return await first(self._regions, ask)
        except ServiceError:
            if without:
                return without[0]
            raise

    async def lift(
        self, hold_id: bytes, reason: str, until: float, on_failure: OnFailure = silent
    ) -> HoldStatus:
        """Lift a hold, repeatedly until the lift is durable.

        This can also lift a hold that a root key's state caused. Even so, the tenant's keys load
        only when the provider accepts the root key again.
        """
        view = await self.find(hold_id.hex())
        try:
            held = self._admin.verifier.hold(view.raw)
        except Untrusted as error:
            raise UntrustedReply(f"the hold's signature is not valid: {error}") from None
        if held.hold.id != hold_id:
            raise UntrustedReply("a Core's reply is about another hold")
        raw = statements.lift(
            self._admin.identity,
            view.raw,
            issued_ms=self._around.clock.unix_ms(),
            reason=reason,
        )
        return _about(await self._put(raw, until, on_failure), hold_id)

    async def _first_put(self, raw: bytes, until: float) -> HoldStatus:
        """Send a hold or lift to the regions; returns the first reply."""

        async def ask(region: str) -> HoldStatus:
            try:
                return await self._admin.put_hold(region, raw, deadline_s=self._time(until))
            except (UntrustedReply, BrokerRefused) as error:
                # It crosses the broker in clear: what no Core signed is no reason to end.
                raise Unavailable(error.detail) from None

        region, status = await first(self._regions, ask)
        self._prefer(region)
        return status

    async def _put(self, raw: bytes, until: float, on_failure: OnFailure) -> HoldStatus:
        attempt = 0
        failure: ServiceError | None = None
        while True:
            try:
                status = await self._first_put(raw, until)
            except ServiceError as error:
                if not error.retryable or isinstance(error, NotLetIn):
                    raise  # of every region, which ``first`` has asked
                failure = error
            else:
                if any(entry.durable_at > 0 for entry in status.regions):
                    return status
                failure = error_for(Code.UNAVAILABLE, "no region has stored it durably yet")
            wait = max(POLL_S, backoff_s(attempt, self._around.chance()))
            if self._around.clock.elapsed() + wait >= until:
                raise failure
            on_failure(failure)
            await self._around.sleep(wait)
            attempt += 1

    def _time(self, until: float) -> float:
        return min(ASK_S, max(0.5, until - self._around.clock.elapsed()))

    def _prefer(self, region: str) -> None:
        self._regions.remove(region)
        self._regions.insert(0, region)


def _rows_after(after: bytes, page: HoldPage) -> list[HoldView]:
    """Return the holds of a page. Raises unless their ids rise from ``after``, so pages end."""
    ids = [view.hold_id for view in page.holds]
    onwards = all(one < other for one, other in pairwise([after, *ids]))
    if not onwards or (page.more and not ids):
        raise UntrustedReply("a Core's list of holds does not continue where the last page ended")
    return list(page.holds)


def _about(status: HoldStatus, hold_id: bytes) -> HoldStatus:
    if status.hold_id != hold_id:
        raise UntrustedReply("a Core's reply is about another hold")
    return status
