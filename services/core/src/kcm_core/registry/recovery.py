"""How a Core without a baseline of its region's registry gets one: it asks a Core that has one.

The question goes to all Cores of the region, and only those with a baseline subscribe to it, so
that their absence shows at once. An answer is signed and contains the question's nonce, so an old
answer has no value. If both know the same, the asking Core remembers it and serves; until then it
reads both stores again. This is how another Core joins a running region, and how a Core with a new
disk recovers, without manual work. If no Core has a baseline and neither store has data, a new
region begins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from kcm_killswitch.model.registry_lease import NO_BASELINE
from kcm_killswitch.replica.verification_budget import Budgets
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.error_text import describe
from kcm_runtime.host import Host
from kcm_runtime.nats.ports import Delivery, NobodyListens, PubSub
from kcm_runtime.tasks import TaskSet
from kcm_schemas import limits, subjects
from kcm_schemas.audit import EventType
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import RegistryAnswer, RegistryQuestion
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted

from kcm_core.registry.baseline import RegistryBaseline, unkept

log = logging.getLogger(__name__)

ASK_S: Final = 1.0
"""Seconds in which a Core with a baseline must answer."""

REACH_S: Final = 0.5
"""Seconds within which this Core receives what the other one has just accepted."""

AGAIN_S: Final = 1.0
"""Seconds until a question without a listener is repeated: broker connections recover by then."""

FIRST_S: Final = 0.1
"""Seconds between the first question and the second; each further wait is twice as long."""

LONGEST_S: Final = 5.0
"""The longest wait between two questions: each makes this Core read both stores again."""


class RegistryRecovery:
    """Asks while this Core has no baseline, and answers when it has."""

    def __init__(
        self,
        host: Host,
        *,
        bus: PubSub,
        baseline: RegistryBaseline,
        compare: Callable[[], None],
        empty: Callable[[], Awaitable[bool]],
    ) -> None:
        """``compare`` synchronizes the two stores soon.

        ``empty`` returns whether neither ever had anything; raises ``unavailable``.
        """
        self._me: Final = host.me
        self._clock: Final = host.clock
        self._random: Final = host.randomness
        self._bus: Final = bus
        self._baseline: Final = baseline
        self._compare: Final = compare
        self._empty: Final = empty
        self._budgets: Final = Budgets()
        self._refusals: Final = RejectionLog("registry", host.emit)
        self._waits = ""
        self._new = False
        """Whether it may be a new region: both stores were empty at the start."""
        self._nobody = False
        """Whether no Core with a baseline received the last question."""
        self._one: Final = asyncio.Lock()
        self._tasks: Final = TaskSet()
        self._joining: asyncio.Task[None] | None = None

    @property
    def waits(self) -> str:
        """The reason why this Core has no baseline yet; empty if it has."""
        return "" if self._baseline.present else self._waits or NO_BASELINE

    async def start(self) -> None:
        """Ask once, or answer others; then continue in the background. The keeper has started."""
        self._baseline.on_lost(self._begin_again)
        if not self._baseline.present:
            with suppress(KcmError):  # an unreadable store does not count as empty
                self._new = await self._empty()
            await self.attempt()
        if self._baseline.present:
            await self._listen()
        else:
            self._baseline.forgotten()
            self._joining = self._tasks.spawn(self._join())

    def _begin_again(self) -> None:
        """Stop answering and ask, because this Core has lost its baseline."""
        self._new = False
        self._baseline.forgotten()
        if self._joining is not None:
            self._joining.cancel()
        self._joining = self._tasks.spawn(self._leave())

    async def _leave(self) -> None:
        with suppress(KcmError):
            await self._bus.unsubscribe(subjects.registry_question(self._me.region))
        await self._join()

    def close(self) -> None:
        """Stop asking."""
        self._tasks.close()
        self._refusals.close()

    async def ask(self) -> None:
        """Ask once; this Core remembers what it knows if the answer is the same.

        Raises ``conflict`` if a Core with a baseline knows another registry, and ``unavailable`` if
        one did not answer, if it is not certain that the question reached any, or if this Core's
        disk is full. If no Core has a baseline, nothing happens.
        """
        async with self._one:
            self._baseline.asking()
            try:
                await self._ask()
            finally:
                self._baseline.asked()

    async def _ask(self) -> None:
        nonce, roster = self._random.public(limits.ID_SIZE), self._me.rosters.version
        question = RegistryQuestion(region=self._me.region, nonce=nonce)
        body = encode(self._me.identity.sign(Kind.REGISTRY_QUESTION, question))
        self._nobody = False
        try:
            raw = await self._asked(body)
        except NobodyListens:
            self._waits = "no Core of the region that can be reached has a baseline of its registry"
            self._nobody = True
            return
        answer, core = self._believed(raw, nonce)
        same = await self._baseline.reaches(answer.digest, REACH_S)
        self._new = False
        if not same or roster != self._me.rosters.version:
            raise KcmError(
                Code.CONFLICT,
                f"{core} has a baseline of another registry; "
                "it is read again until both are the same",
            )
        try:
            # What was accepted since then is known here, too: no agreed entry is dropped.
            joined = EventType.REGISTRY_JOINED
            await self._baseline.begin(joined, self._baseline.digest, detail=core)
        except OSError as error:
            raise unkept(error) from None
        self._compare()

    async def _asked(self, body: bytes) -> bytes:
        """The answer; ``NobodyListens`` if the broker said so twice on one connection."""
        connection = self._bus.times_connected
        with suppress(NobodyListens):
            return await self._once(body)
        await asyncio.sleep(AGAIN_S)
        try:
            return await self._once(body)
        except NobodyListens:
            if self._bus.times_connected != connection:
                raise KcmError(
                    Code.UNAVAILABLE,
                    "the connection to the broker was lost while Cores were asked for their "
                    "baseline of the registry; try again",
                ) from None
            raise

    async def _once(self, body: bytes) -> bytes:
        try:
            return await self._bus.request(subjects.registry_question(self._me.region), body, ASK_S)
        except NobodyListens:
            raise
        except KcmError as error:
            why = (
                "a Core that has a baseline did not answer in time"
                if error.code is Code.DEADLINE_EXCEEDED
                else "the Cores of the region cannot be asked for their baseline of the registry: "
                f"{error.detail or error.code.value}"
            )
            raise KcmError(Code.UNAVAILABLE, f"{why}; try again") from None

    def _believed(self, raw: bytes, nonce: bytes) -> tuple[RegistryAnswer, str]:
        try:
            answer, core = self._me.verifier.registry_answer(raw)
            if (answer.region, answer.nonce) != (self._me.region, nonce):
                raise Untrusted("the answer is to another question")
            if core == self._me.name:
                raise Untrusted("the answer has this Core's own name")
        except Untrusted as error:
            self._refusals.record(error)
            raise KcmError(Code.UNAVAILABLE, "an answer on the registry is not believed") from None
        return answer, core

    async def attempt(self) -> None:
        """Ask once, or begin with an empty registry where that is allowed; failures are logged."""
        try:
            await self.ask()
            await self._begin()
        except KcmError as error:
            if error.detail != self._waits:
                log.warning("no baseline of the region's registry yet: %s", error.detail)
            self._waits = error.detail
            self._compare()
        except Exception as error:  # noqa: BLE001 - without a question it would never serve
            log.warning("no baseline of the region's registry yet: %s", describe(error))

    async def _begin(self) -> None:
        """Begin with an empty registry if no Core has a baseline and nothing is stored."""
        if self._baseline.present or not (self._new and self._nobody and await self._empty()):
            return
        try:
            await self._baseline.begin(EventType.REGISTRY_BEGUN, self._baseline.digest)
        except OSError as error:
            raise unkept(error) from None

    async def _join(self) -> None:
        wait = FIRST_S
        # A flag in addition to cancellation: the client library may swallow a cancellation.
        while not self._tasks.closed and not self._baseline.present:
            await self._baseline.wait(wait)
            wait = min(2 * wait, LONGEST_S)
            if not self._baseline.present:
                await self.attempt()
        if not self._tasks.closed:
            await self._listen()

    async def _listen(self) -> None:
        subject = subjects.registry_question(self._me.region)
        while not self._tasks.closed:
            try:
                await self._bus.subscribe(subject, self._on_question)
            except KcmError as error:
                log.warning("questions on the registry are not heard yet: %s", error.detail)
                await asyncio.sleep(FIRST_S)
            else:
                return

    async def _on_question(self, message: Delivery) -> None:
        """Answer what this Core remembers; every question has a cost, valid or not."""
        now = self._clock.elapsed()
        if not subjects.is_inbox(message.reply) or not self._budgets.left("", now):
            return
        self._budgets.failed("", now)
        try:
            question = self._me.verifier.registry_question(message.data)
        except Untrusted as error:
            self._refusals.record(error)
            return
        if question.region != self._me.region or not self._baseline.present or not self._me.acts:
            return
        answer = RegistryAnswer(
            region=question.region, nonce=question.nonce, digest=self._baseline.digest
        )
        try:
            await self._bus.publish(
                message.reply, encode(self._me.identity.sign(Kind.REGISTRY_ANSWER, answer))
            )
        except KcmError as error:
            log.warning("a question on the registry is not answered: %s", error.detail)
