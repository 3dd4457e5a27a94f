"""Other regions: what they hold is learned here, and what this region knows of them is fenced.

A Core notes its own latest mark, asks the other region for everything that it holds, and a Core
there answers behind an own write of its own that began after the question arrived. What was missing
is stored here until it is acknowledged; only then does the peer lease say that, when our stream
stood at the mark, we knew everything of that region. Nobody peer leases a region that judges by a
higher roster than the own one: a hold that counts there may be lifted here.

The Cores of a region share this work: who hears a peer lease that somebody else wrote waits with
its own question.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final, NamedTuple

from kcm_runtime.audit.port import Emit
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.clock import Clock, Randomness
from kcm_runtime.error_text import describe
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.ports import Arrived, Log, Messages
from kcm_schemas import limits, subjects
from kcm_schemas.audit import EventType
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import PeerLease, PullReply, PullRequest
from kcm_schemas.signed import Kind, read_signed
from kcm_trust.statements import key_of_page
from kcm_trust.verify import Untrusted

from kcm_killswitch.model.completeness import RegionFacts
from kcm_killswitch.model.incarnations import said_ms
from kcm_killswitch.model.log_position import LogPosition
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.model.timing import Timing
from kcm_killswitch.replica.killswitch import KillSwitch
from kcm_killswitch.replica.lift_page_keeper import is_page
from kcm_killswitch.replica.verification_budget import Budgets

log = logging.getLogger(__name__)

PULL_TIMEOUT_S: Final = 1.5
"""Seconds that another region gets to say what it knows."""

PAGE_BYTES: Final = 384 * 1024
"""Bytes of holds in one reply to a pull: with registered incarnations it stays below the bound of a
message."""

PAGES_MAX: Final = 1024
"""Answers that are asked for in one round: another region's word that there is more is bounded."""

PULLS_IN_FLIGHT_MAX: Final = 16
"""Pulls of other regions answered at once: more are asked again."""

SLICE: Final = 16
"""Holds of another region that are learned in one go: checking them takes some 5 ms."""

STORE_S: Final = 3.0
"""Seconds for which a peer lease waits until what was learned is stored."""


class Known(NamedTuple):
    """The digests of what somebody knows: of holds, and of the pages of those that are lifted."""

    parts: bytes
    pages: bytes


NOTHING: Final = Known(b"", b"")
"""What a pull names that asks for no holds: their progress is asked for often."""

FIRST: Final = bytes(limits.ID_SIZE)
"""The id behind which everything lies; and the hold id of a pull that asks for none."""


ResultOf = Callable[[bytes, int], Awaitable[bytes]]
"""Gets the signed result of a hold that lies at a place of this region's stream, or nothing."""


class RegionSync:
    """Asks the other regions, and answers them."""

    def __init__(
        self,
        *,
        membership: InstanceContext,
        control_bus: Messages,
        stream: Log,
        revocations: Revocations,
        switch: KillSwitch,
        timing: Timing,
        clock: Clock,
        randomness: Randomness,
        chance: Callable[[], float],
        emit: Emit,
        result_of: ResultOf,
    ) -> None:
        self._me: Final = membership
        self._bus: Final = control_bus
        self._stream: Final = stream
        self._revocations: Final = revocations
        self._switch: Final = switch
        self._timing: Final = timing
        self._clock: Final = clock
        self._random: Final = randomness
        self._chance: Final = chance
        self._closing = False
        self._budgets: Final = Budgets()
        self._emit: Final = emit
        self._refusals: Final = RejectionLog("pulls", emit)
        self._result_of: Final = result_of
        self._refreshed: dict[str, float] = {}
        self._same: dict[str, float] = {}
        """When each region was asked last of those times at which it knew what was known here."""
        self._stated: dict[str, PeerLease] = {}
        self._lacking: dict[str, int] = {}
        """The highest roster that another region said to have."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked: set[str] = set()
        self._answering: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Answer other regions, and learn what they hold."""
        region = self._me.region
        await self._bus.subscribe(subjects.pulls(region), self._on_pull, queue=f"core-{region}")
        await asyncio.gather(*(self._round(other) for other in self._others))
        self._ask_all()
        self._me.rosters.listen(lambda _: self._ask_all())

    @property
    def _others(self) -> list[str]:
        return [other for other in self._me.verifier.regions if other != self._me.region]

    def _ask_all(self) -> None:
        """Keep on asking every region that is on the roster, also one that is new there."""
        for other in self._others:
            if other in self._asked or self._closing:
                continue
            self._asked.add(other)
            task = asyncio.get_running_loop().create_task(self._keep_asking(other))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop asking and answering."""
        self._closing = True
        for task in (*self._tasks, *self._answering):
            task.cancel()
        self._refusals.close()

    def on_peer_lease(self, peer_lease: PeerLease) -> None:
        """Somebody in this region knows another region: the own question can wait.

        Not for one that is delivered once more: who repeats it would keep everybody from asking.
        """
        if self._stated.get(peer_lease.other) != peer_lease:
            self._stated[peer_lease.other] = peer_lease
            self._refreshed[peer_lease.other] = self._clock.elapsed()

    async def facts(
        self, region: str, hold_id: bytes, within_s: float = PULL_TIMEOUT_S
    ) -> PullReply | None:
        """What another region says of a hold and of who is on record there.

        Waits ``PULL_TIMEOUT_S`` at most, whatever ``within_s`` is.
        """
        return await self._pull(region, hold_id, FIRST, NOTHING, min(PULL_TIMEOUT_S, within_s))

    async def facts_here(self, hold_id: bytes) -> RegionFacts:
        """What this region's stream says of a hold, and of who is on record there."""
        return (await self._switch.facts(hold_id))[1]

    def all_same_since(self, moment: float) -> bool:
        """Whether every other region in service knew, since then, all that was known here."""
        others = [other for other in self._others if not self._revocations.retired(other)]
        return all(self._same.get(other, float("-inf")) >= moment for other in others)

    def _unlike(self, theirs: Known, after: bytes) -> Iterator[bytes]:
        """Statements that somebody lacks who knows this, by id and key, behind one of them."""
        if theirs == NOTHING:
            return
        holds, pages = self._revocations.holds, self._switch.lifts.pages
        for prefix in range(after[0], 256):
            records = [(one.hold.id, one.message) for one in holds.unlike(theirs.parts, prefix)]
            found = [(one.key, one.raw) for one in pages.unlike(theirs.pages, prefix)]
            yield from (raw for key, raw in sorted(records + found) if key > after)

    async def _keep_asking(self, other: str) -> None:
        every = self._timing.pull_every_s
        while not self._closing:
            if other not in self._others:
                self._asked.discard(other)
                return
            heard = self._refreshed.get(other, float("-inf"))
            wait = heard + every * (1 - self._chance() / 4) - self._clock.elapsed()
            if wait > 0:
                await asyncio.sleep(wait)
                continue
            if not await self._round(other):
                await asyncio.sleep(every / 4 * (1 + self._chance()))

    async def _round(self, other: str) -> bool:
        """Learn everything of a region, store it, and peer lease it."""
        if self._revocations.retired(other):
            self._refreshed[other] = self._clock.elapsed()
            return True
        try:
            mark = await self._switch.record.renew()
            roster = await self._learn_from(other)
            if roster is None or not await self._stored():
                return False
            await self._state_peer_lease(other, mark, roster)
        except Exception as error:  # noqa: BLE001 - who stops asking misses what was lost
            log.warning("region %s could not be asked: %s", other, describe(error))
            return False
        self._refreshed[other] = self._clock.elapsed()
        return True

    async def _learn_from(self, region: str) -> int | None:
        """Learn all that a region holds: the roster by which it counts, or ``None``: not all."""
        after, roster = FIRST, 0
        for _ in range(PAGES_MAX):
            asked = self._clock.elapsed()
            reply = await self._pull(region, FIRST, after, self._known())
            if reply is None:
                return None
            roster = max(roster, reply.roster)
            if roster > self._me.rosters.version:
                # What counts there by its roster may be lifted by this one: no peer lease says
                # more.
                self._behind(region, roster)
                return None
            try:
                after = await self._learn_all(reply.holds) or after
            except Untrusted as error:
                # Whatever follows is not reached any more: no peer lease may say that it was.
                log.warning("a hold of region %s was not believed: %s", region, error)
                return None
            if reply.same:
                self._same[region] = asked
            if reply.same or not reply.more:
                return roster
        return None

    def _behind(self, region: str, roster: int) -> None:
        """Say once for each roster that this region lacks it, whichever Core answers there."""
        if self._lacking.get(region, 0) >= roster:
            return
        self._lacking[region] = roster
        mine = self._me.rosters.version
        log.error(
            "region %s judges by roster %d, this one by %d: tenants that both serve go dark here "
            "until it is brought: kcm roster put",
            region,
            roster,
            mine,
        )
        detail = f"region {region} has version {roster}, this one {mine}"
        self._emit(EventType.ROSTER_BEHIND, code=Code.UNAVAILABLE, detail=detail)

    def _known(self) -> Known:
        return Known(self._revocations.holds.parts, self._switch.lifts.pages.digests)

    async def _learn_all(self, statements: list[bytes]) -> bytes:
        """Learn holds and lifts, and return the highest id. Raises ``Untrusted``.

        Those that kill come first, and each purges as it is learned. Between a few of them others
        have their turn: thousands come after a partition, and this region answers meanwhile.
        """
        highest = b""
        for count, raw in enumerate(sorted(statements, key=_is_lift), 1):
            highest = max(highest, self._learn(raw))
            if count % SLICE == 0 or is_page(raw):
                await asyncio.sleep(0)
        return highest

    def _learn(self, raw: bytes) -> bytes:
        """Learn a statement; returns its id, or key. Raises ``Untrusted`` for a hold or lift.

        A page that is not believed here ends nothing here, which keeps nobody from being killed.
        """
        if not is_page(raw):
            return self._switch.learn(raw)
        try:
            return self._switch.learn(raw)
        except Untrusted as error:
            log.warning("a page of another region is not believed: %s", error)
            return key_of_page(raw)

    async def _stored(self) -> bool:
        """Wait until what is known now is stored; what is learned meanwhile may never end."""
        waiting = [record.hold.id for record in self._revocations.holds]

        def stored() -> bool:
            while waiting and self._switch.durable_at(waiting[-1]):
                waiting.pop()
            return not waiting

        return await self._switch.until(stored, STORE_S)

    async def _state_peer_lease(self, other: str, mark: LogPosition, roster: int) -> None:
        highest = self._switch.highest_hold()
        peer_lease = PeerLease(
            region=self._me.region,
            other=other,
            position=mark.sequence,
            nonce=mark.nonce,
            stored=highest.sequence,
            hold=highest.nonce,
            roster=roster,
        )
        body = encode(self._me.identity.sign(Kind.PEER_LEASE, peer_lease))
        await self._stream.put(subjects.control_peer_lease(self._me.region, other), body)

    async def _pull(
        self,
        region: str,
        hold_id: bytes,
        after: bytes,
        known: Known,
        within_s: float = PULL_TIMEOUT_S,
    ) -> PullReply | None:
        """Ask another region; ``None`` when it does not answer, or not in a way to be believed."""
        nonce = self._random.public(limits.ID_SIZE)
        request = PullRequest(
            region=self._me.region,
            nonce=nonce,
            after=after,
            parts=known.parts,
            pages=known.pages,
            hold_id=hold_id,
        )
        body = encode(self._me.identity.sign(Kind.PULL, request))
        subject = subjects.pull(region, self._me.region)
        try:
            raw = await self._bus.request(subject, body, within_s)
            reply = self._me.verifier.pull_reply(raw)
        except (KcmError, Untrusted) as error:
            log.warning("region %s does not answer a pull: %s", region, error)
            return None
        return reply if (reply.region, reply.nonce) == (region, nonce) else None

    async def _on_pull(self, message: Arrived) -> None:
        """Answer in a task: what it waits for must not keep later pulls waiting."""
        if not subjects.is_inbox(message.reply) or len(self._answering) >= PULLS_IN_FLIGHT_MAX:
            return
        source, now = subjects.asker(message.subject), self._clock.elapsed()
        if not self._budgets.left(source, now):
            return
        try:
            request = self._me.verifier.pull(message.data)
            if request.region != source:
                raise Untrusted("a pull in the name of another region")
        except Untrusted as error:
            self._budgets.failed(source, now)
            self._refusals.record(error)
            return
        task = asyncio.get_running_loop().create_task(self._answer(request, message.reply))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, request: PullRequest, reply_to: str) -> None:
        try:
            position, facts = await self._switch.facts(request.hold_id)
            known = self._known()
            theirs = Known(request.parts, request.pages)
            asked = self._revocations.holds.get(request.hold_id)
            result = b""
            if asked is not None and not asked.lifted and facts.durable_at:
                result = await self._result_of(request.hold_id, facts.durable_at)
            page, more = page_of(self._unlike(theirs, request.after))
            reply = PullReply(
                region=self._me.region,
                nonce=request.nonce,
                roster=self._switch.rosters.highest,
                same=theirs == known,
                more=more,
                position=position,
                durable_at=facts.durable_at,
                held_ms=said_ms(facts.since_s),
                watched_ms=said_ms(facts.watched_s),
                reached=facts.reached,
                settled=facts.settled,
                lifted=asked is not None and asked.lifted,
                holds=page,
                incarnations=list(facts.incarnations),
                result=result,
            )
            body = self._signed(reply)
            await self._bus.publish(reply_to, body)
        except KcmError as error:
            log.warning("a pull is not answered: %s", error)

    def _signed(self, reply: PullReply) -> bytes:
        """The answer, without the result where there is no room for it."""
        identity = self._me.identity
        try:
            return encode(identity.sign(Kind.PULL_REPLY, reply))
        except KcmError as error:
            if error.code is not Code.TOO_LARGE or not reply.result:
                raise
        bare = reply.model_copy(update={"result": b""})
        return encode(identity.sign(Kind.PULL_REPLY, bare))


def _is_lift(raw: bytes) -> bool:
    try:
        return read_signed(raw).kind in (Kind.LIFT, Kind.LIFTS)
    except KcmError:
        return False


def page_of(statements: Iterable[bytes]) -> tuple[list[bytes], bool]:
    """As many statements as one answer takes, and whether there are more."""
    page: list[bytes] = []
    size = 0
    for raw in statements:
        size += len(raw)
        if page and (size > PAGE_BYTES or len(page) >= limits.HOLDS_MAX):
            return page, True
        page.append(raw)
    return page, False
