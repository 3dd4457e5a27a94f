"""The answers of a Core to the pulls of other regions.

A Core answers after a write of its own that began after the question arrived, so the answer is not
older than the question. Any client with the control bus's password can ask: each region has a
budget of pulls that do not verify, and a bounded number of pulls is answered at once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.host import Host
from kcm_runtime.logs import fields
from kcm_runtime.nats.ports import Delivery, PubSub
from kcm_runtime.tasks import TaskSet
from kcm_schemas import limits, subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import PullReply, PullRequest
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted

from kcm_killswitch.coordinator.region_knowledge import FIRST, RegionKnowledge, RegionView
from kcm_killswitch.model.incarnations import said_ms
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.killswitch import KillSwitch
from kcm_killswitch.replica.log_fields import Target
from kcm_killswitch.replica.verification_budget import Budgets

log = logging.getLogger(__name__)

PAGE_BYTES: Final = 384 * 1024
"""Bytes of holds in one reply to a pull, which fits into a message with its incarnations."""

PULLS_IN_FLIGHT_MAX: Final = 16
"""Maximum number of pulls of other regions that are answered at once; others are sent again."""

ResultOf = Callable[[bytes, int], Awaitable[bytes]]
"""Gets the signed result of a hold that is at a sequence of this region's stream, or nothing."""


class PullAnswers:
    """Verifies pulls, and answers each in a task."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        control_bus: PubSub,
        switch: KillSwitch,
        knowledge: RegionKnowledge,
        result_of: ResultOf,
    ) -> None:
        self._me: Final = host.me
        self._clock: Final = host.clock
        self._revocations: Final = replica_state.revocations
        self._bus: Final = control_bus
        self._switch: Final = switch
        self._knowledge: Final = knowledge
        self._result_of: Final = result_of
        self._budgets: Final = Budgets()
        self._refusals: Final = RejectionLog("pulls", host.emit)
        self._tasks: Final = TaskSet()

    async def start(self) -> None:
        """Subscribe; the Cores of a region share the pulls. Raises ``unavailable``."""
        region = self._me.region
        await self._bus.subscribe(subjects.pulls(region), self._on_pull, queue=f"core-{region}")

    def close(self) -> None:
        """Stop answering."""
        self._tasks.close()
        self._refusals.close()

    async def _on_pull(self, message: Delivery) -> None:
        """Answer in a task, so that its waits do not delay later pulls."""
        if not subjects.is_inbox(message.reply) or len(self._tasks) >= PULLS_IN_FLIGHT_MAX:
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
        self._tasks.spawn(self._answer(request, message.reply))

    async def _answer(self, request: PullRequest, reply_to: str) -> None:
        try:
            body = self._signed(await self._reply(request))
            await self._bus.publish(reply_to, body)
        except KcmError as error:
            log.warning(
                "a pull of another region is not answered, and that region has to ask again: %s",
                error.detail,
                extra=fields(**of_pull(request.region, request.hold_id), code=error.code.value),
            )

    async def _reply(self, request: PullRequest) -> PullReply:
        """What this region knows, after a write that began now. Raises ``unavailable``."""
        position, facts = await self._switch.facts(request.hold_id)
        known = self._knowledge.digests
        theirs = RegionView(request.parts, request.pages)
        asked = self._revocations.holds.get(request.hold_id)
        result = b""
        if asked is not None and not asked.lifted and facts.durable_at:
            result = await self._result_of(request.hold_id, facts.durable_at)
        page, more = page_of(self._knowledge.unlike(theirs, request.after))
        return PullReply(
            region=self._me.region,
            nonce=request.nonce,
            roster=self._switch.highest_roster,
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

    def _signed(self, reply: PullReply) -> bytes:
        """The signed answer, without the result if there is no room for it."""
        identity = self._me.identity
        try:
            return encode(identity.sign(Kind.PULL_REPLY, reply))
        except KcmError as error:
            if error.code is not Code.TOO_LARGE or not reply.result:
                raise
        bare = reply.model_copy(update={"result": b""})
        return encode(identity.sign(Kind.PULL_REPLY, bare))


def of_pull(region: str, hold_id: bytes) -> Target:
    """Name the other region of a pull in a log line, and the hold if the pull is about one."""
    return Target(region=region) if hold_id == FIRST else Target(region=region, hold=hold_id)


def page_of(statements: Iterable[bytes]) -> tuple[list[bytes], bool]:
    """As many statements as one answer has room for, and whether there are more."""
    page: list[bytes] = []
    size = 0
    for raw in statements:
        size += len(raw)
        if page and (size > PAGE_BYTES or len(page) >= limits.HOLDS_MAX):
            return page, True
        page.append(raw)
    return page, False
