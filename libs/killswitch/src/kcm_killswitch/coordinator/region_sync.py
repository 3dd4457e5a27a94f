"""Exchange with other regions: this Core learns their holds, and states peer leases on them.

A Core notes its latest log position, and asks the other region for all its holds. A Core there
answers after a write of its own that began after the question arrived. The asking Core stores what
was missing here. Once the stream has acknowledged that, the peer lease says that this region knew
everything of the other one when its stream was at that log position. No Core states one on a region
with a higher roster than its own: a hold that is in force there may be lifted here.

The Cores of a region share this work: a Core that hears a peer lease of another Core postpones its
own question.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from kcm_runtime.error_text import describe
from kcm_runtime.host import Host
from kcm_runtime.logs import fields
from kcm_runtime.nats.ports import PubSub, StreamLog
from kcm_runtime.tasks import TaskSet
from kcm_schemas import limits, subjects
from kcm_schemas.audit import EventType
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import PeerLease, PullReply, PullRequest
from kcm_schemas.signed import Kind, read_signed
from kcm_trust.statements import key_of_page
from kcm_trust.verify import Untrusted

from kcm_killswitch.coordinator.pull_answers import PullAnswers, ResultOf, of_pull
from kcm_killswitch.coordinator.region_knowledge import FIRST, NOTHING, RegionKnowledge, RegionView
from kcm_killswitch.model.completeness import RegionFacts
from kcm_killswitch.model.log_position import LogPosition
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.model.timing import Timing
from kcm_killswitch.replica.killswitch import KillSwitch
from kcm_killswitch.replica.lift_page_keeper import is_page

log = logging.getLogger(__name__)

PULL_TIMEOUT_S: Final = 1.5
"""Seconds within which another region has to answer."""

PAGES_MAX: Final = 1024
"""Maximum number of pages in one round: a bound on another region's claim that there is more."""

SLICE: Final = 16
"""Holds of another region that are learned before the loop yields; it takes about 5 ms."""

STORE_S: Final = 3.0
"""Seconds for which a peer lease waits until the learned holds are stored."""


class RegionSync:
    """Asks the other regions for what they know; ``PullAnswers`` answers them."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        control_bus: PubSub,
        stream: StreamLog,
        switch: KillSwitch,
        timing: Timing,
        result_of: ResultOf,
    ) -> None:
        self._me: Final = host.me
        self._bus: Final = control_bus
        self._stream: Final = stream
        self._revocations: Final = replica_state.revocations
        self._switch: Final = switch
        self._timing: Final = timing
        self._clock: Final = host.clock
        self._random: Final = host.randomness
        self._chance: Final = host.chance
        self._closing = False
        self._emit: Final = host.emit
        self._knowledge: Final = RegionKnowledge(replica_state.revocations, switch)
        self._answers: Final = PullAnswers(
            host,
            replica_state,
            control_bus=control_bus,
            switch=switch,
            knowledge=self._knowledge,
            result_of=result_of,
        )
        self._refreshed: dict[str, float] = {}
        self._same: dict[str, float] = {}
        """When each region was last asked and knew the same as this one; seconds of this clock."""
        self._stated: dict[str, PeerLease] = {}
        self._lacking: dict[str, int] = {}
        """The highest roster version that another region reported."""
        self._tasks: Final = TaskSet()
        self._asked: set[str] = set()

    async def start(self) -> None:
        """Answer other regions, and learn their holds."""
        await self._answers.start()
        await asyncio.gather(*(self._round(other) for other in self._others))
        self._ask_all()
        self._me.rosters.listen(lambda _: self._ask_all())

    @property
    def _others(self) -> list[str]:
        return [other for other in self._me.verifier.regions if other != self._me.region]

    def _ask_all(self) -> None:
        """Keep asking every region on the roster, including one that was added to it."""
        for other in self._others:
            if other in self._asked or self._closing:
                continue
            self._asked.add(other)
            self._tasks.spawn(self._keep_asking(other))

    async def close(self) -> None:
        """Stop asking and answering."""
        self._closing = True
        self._tasks.close()
        self._answers.close()

    def on_peer_lease(self, peer_lease: PeerLease) -> None:
        """A Core of this region has stated a peer lease: this Core's own question can wait.

        A peer lease that is delivered once more does not count. Otherwise a party that repeats it
        could keep every Core from asking.
        """
        if self._stated.get(peer_lease.other) != peer_lease:
            self._stated[peer_lease.other] = peer_lease
            self._refreshed[peer_lease.other] = self._clock.elapsed()

    async def facts(
        self, region: str, hold_id: bytes, within_s: float = PULL_TIMEOUT_S
    ) -> PullReply | None:
        """What another region reports on a hold, and its registered incarnations.

        Waits ``PULL_TIMEOUT_S`` at most, whatever ``within_s`` is.
        """
        return await self.pull(region, hold_id, FIRST, NOTHING, min(PULL_TIMEOUT_S, within_s))

    async def facts_here(self, hold_id: bytes) -> RegionFacts:
        """What this region's stream says of a hold, and the incarnations registered in it."""
        return (await self._switch.facts(hold_id))[1]

    def all_same_since(self, moment: float) -> bool:
        """Whether every other region in service has since then known all that was known here."""
        others = [other for other in self._others if not self._revocations.retired(other)]
        return all(self._same.get(other, float("-inf")) >= moment for other in others)

    async def _keep_asking(self, other: str) -> None:
        every = self._timing.pull_every_s
        while not self._closing:
            if other not in self._others or not self._me.acts:
                self._asked.discard(other)  # a region answers no instance that is retired
                return
            heard = self._refreshed.get(other, float("-inf"))
            wait = heard + every * (1 - self._chance() / 4) - self._clock.elapsed()
            if wait > 0:
                await asyncio.sleep(wait)
                continue
            if not await self._round(other):
                await asyncio.sleep(every / 4 * (1 + self._chance()))

    async def _round(self, other: str) -> bool:
        """Learn everything of a region, store it, and state a peer lease on it."""
        if self._revocations.retired(other):
            self._refreshed[other] = self._clock.elapsed()
            return True
        try:
            position = await self._switch.renew()
            roster = await self._learn_from(other)
            if roster is None or not await self._stored():
                return False
            await self._state_peer_lease(other, position, roster)
        except KcmError as error:
            log.warning(
                "the exchange with another region failed, and is repeated: %s",
                error.detail or error.code.value,
                extra=fields(region=other, code=error.code.value),
            )
            return False
        except Exception as error:  # noqa: BLE001 - a task that stops asking misses what was lost
            log.warning(
                "the exchange with another region failed, and is repeated: %s",
                describe(error),
                extra=fields(region=other),
            )
            return False
        self._refreshed[other] = self._clock.elapsed()
        return True

    async def _learn_from(self, region: str) -> int | None:
        """Learn all holds of a region; its roster version, or ``None`` if not all were learned."""
        after, roster = FIRST, 0
        for _ in range(PAGES_MAX):
            asked = self._clock.elapsed()
            reply = await self.pull(region, FIRST, after, self._knowledge.digests)
            if reply is None:
                return None
            roster = max(roster, reply.roster)
            if roster > self._me.rosters.version:
                # A hold that counts there by its roster may be lifted by the roster here. So state
                # no peer lease.
                self._behind(region, roster)
                return None
            try:
                after = await self._learn_all(region, reply.holds) or after
            except Untrusted as error:
                # The rest is not reached any more, so no peer lease may cover it.
                log.warning(
                    "a hold or lift of another region is not believed, and no peer lease is "
                    "stated on that region: %s",
                    error,
                    extra=fields(region=region),
                )
                return None
            if reply.same:
                self._same[region] = asked
            if reply.same or not reply.more:
                return roster
        return None

    def _behind(self, region: str, roster: int) -> None:
        """Report once for each roster that this region lacks it, whichever Core answers there."""
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
            extra=fields(region=region, version=roster),
        )
        detail = f"region {region} has version {roster}, this one {mine}"
        self._emit(EventType.ROSTER_BEHIND, code=Code.UNAVAILABLE, detail=detail)

    async def _learn_all(self, region: str, statements: list[bytes]) -> bytes:
        """Learn holds and lifts of a region; returns the highest id. Raises ``Untrusted``.

        Holds come first, and each purges as it is learned. The loop yields after a few of them:
        thousands come after a partition, and this region has to answer meanwhile.
        """
        highest = b""
        for count, raw in enumerate(sorted(statements, key=_is_lift), 1):
            highest = max(highest, self._learn(region, raw))
            if count % SLICE == 0 or is_page(raw):
                await asyncio.sleep(0)
        return highest

    def _learn(self, region: str, raw: bytes) -> bytes:
        """Learn a statement; returns its id, or key. Raises ``Untrusted`` for a hold or lift.

        A page that is not accepted here ends no hold here, so every kill remains in force.
        """
        if not is_page(raw):
            return self._switch.learn(raw)
        try:
            return self._switch.learn(raw)
        except Untrusted as error:
            log.warning(
                "a page of lifted holds from another region is not believed, and ends no hold "
                "here: %s",
                error,
                extra=fields(region=region),
            )
            return key_of_page(raw)

    async def _stored(self) -> bool:
        """Wait until what is known now is stored; new arrivals may never end, and do not count."""
        waiting = [state.hold.id for state in self._revocations.holds]

        def stored() -> bool:
            while waiting and self._switch.durable_at(waiting[-1]):
                waiting.pop()
            return not waiting

        return await self._switch.until(stored, STORE_S)

    async def _state_peer_lease(self, other: str, position: LogPosition, roster: int) -> None:
        highest = self._switch.highest_hold()
        peer_lease = PeerLease(
            region=self._me.region,
            other=other,
            position=position.sequence,
            nonce=position.nonce,
            stored=highest.sequence,
            hold=highest.nonce,
            roster=roster,
        )
        body = encode(self._me.identity.sign(Kind.PEER_LEASE, peer_lease))
        await self._stream.put(subjects.control_peer_lease(self._me.region, other), body)

    async def pull(
        self,
        region: str,
        hold_id: bytes,
        after: bytes,
        known: RegionView,
        within_s: float = PULL_TIMEOUT_S,
    ) -> PullReply | None:
        """Ask another region; ``None`` if it does not answer, or if the answer is not accepted."""
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
            log.warning(
                "another region gives no valid answer to a pull: %s",
                error,
                extra=fields(**of_pull(region, hold_id)),
            )
            return None
        return reply if (reply.region, reply.nonce) == (region, nonce) else None


def _is_lift(raw: bytes) -> bool:
    try:
        return read_signed(raw).kind in (Kind.LIFT, Kind.LIFTS)
    except KcmError:
        return False
