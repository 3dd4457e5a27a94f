"""An incarnation's lease entry in its region's stream, and the lease that its renewal gives.

The entry is replaced by compare-and-set, so an acknowledgement also proves that the stream still
has everything up to the previous entry. If it has not, or if the entry that is read back is not the
one that was acknowledged, the stream was rolled back: all freshness is void, and the stream is
replayed from its start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from kcm_runtime.error_text import describe
from kcm_runtime.host import Host
from kcm_runtime.logs import fields
from kcm_runtime.nats.ports import Entry, StreamLog
from kcm_schemas import limits, subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Lease
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind
from kcm_trust.verify import Forged, Untrusted

from kcm_killswitch.model.divergence import Divergence
from kcm_killswitch.model.incarnations import Incarnations
from kcm_killswitch.model.log_position import LogPosition
from kcm_killswitch.model.replica_state import ReplicaState

log = logging.getLogger(__name__)

LEASE_TTL: Final = "120s"
"""How long a lease entry stays after the last renewal by its incarnation: longer than a Core that
completes a kill waits."""

BEFORE_EVERYTHING: Final = 1
"""The first sequence of any stream: an incarnation that cannot name its beginning must send
receipts for all holds."""

SHOW_S: Final = 1.0
"""Seconds after a Core's last lease entry within which the next one shows a changed registry.

Two Cores that accept entries concurrently may briefly show a registry that no other instance ever
had. An instance that differs for ``kcm_killswitch.model.registry_lease.PATIENCE_S`` stops serving;
that time is longer."""

TURN_S: Final = 0.001
"""The shortest wait: the clock may not advance in a shorter time."""

RETRY_S: Final = 0.5
"""Seconds between attempts of a write that failed."""

END_S: Final = 2.0
"""Seconds during which the statement of an incarnation's end is tried again: a Core that waits for
the incarnation stops counting it after its lease anyway."""


class LeaseKeeper:
    """Writes this incarnation's lease entries, and reads those of all incarnations."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        stream: StreamLog,
        judged: Callable[[], int],
        registry_differs: Callable[[], None],
        went_back: Callable[[], None],
        changed: Callable[[], None],
        unheard: Callable[[], Awaitable[None]],
    ) -> None:
        """``judged`` gives the roster version by which the whole stream was evaluated.

        ``registry_differs`` is called while a Core shows another registry than is known here.

        ``changed`` is called after every change of the lease.

        ``went_back`` is called after everything was forgotten: the stream has to be replayed.
        ``unheard`` is called repeatedly while no write was acknowledged for half a lease.
        """
        self._me: Final = host.me
        self._revocations: Final = replica_state.revocations
        self._stream: Final = stream
        self._freshness: Final = replica_state.freshness
        self._clock: Final = host.clock
        self._random: Final = host.randomness
        self._judged: Final = judged
        self._registry_differs: Final = registry_differs
        self._went_back: Final = went_back
        self._tell_changed: Final = changed
        self._unheard: Final = unheard
        self._divergence: Final = Divergence()
        self.incarnations: Final = Incarnations()
        self._subject: Final = subjects.control_lease(
            host.me.region, host.me.name, host.me.incarnation
        )
        self._writing: Final = asyncio.Lock()
        self._next: asyncio.Task[LogPosition] | None = None
        self._first = 0
        self._expected = 0
        self._wrote = float("-inf")
        self._shown: list[bytes] = []
        """The registry as the last acknowledged lease entry shows it."""
        self._changed: Final = asyncio.Event()
        if host.me.role is Role.CORE:
            replica_state.freshness.registry.listen(self._changed.set)
        self._closing = False
        self._ceased = False

    async def renew(self) -> LogPosition:
        """Write a lease entry, not begun before this call; returns its position once acknowledged.

        Concurrent callers share one write. Raises ``unavailable``.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._write_next())
            self._next.add_done_callback(_seen)
        return await asyncio.shield(self._next)

    async def keep(self) -> None:
        """Write lease entries until this incarnation ends."""
        every = self._freshness.timing.renew_every_s
        patience = self._freshness.timing.control_lease_s / 2
        heard = self._clock.elapsed()
        # A flag in addition to cancellation: the client library may swallow a cancellation.
        while not self._closing:
            self._changed.clear()
            wait = self._wrote + self._pause_s() - self._clock.elapsed()
            if wait > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), max(wait, TURN_S))
                continue
            heard = max(heard, self._wrote)
            try:
                if self._clock.elapsed() - heard >= patience:
                    heard = self._clock.elapsed()
                    await self._unheard()
                await self.renew()
            except Exception as error:  # noqa: BLE001 - without a lease entry, it is forgotten
                log.warning(
                    "a lease entry was not acknowledged, another one is written: %s",
                    describe(error),
                    extra=fields(region=self._me.region, instance=self._me.name),
                )
                await asyncio.sleep(min(RETRY_S, every / 2))

    async def end(self) -> None:
        """State that this incarnation holds no key any more."""
        self._closing = True
        if self._ceased:
            return  # no other instance would accept it
        until = self._clock.elapsed() + END_S
        while True:
            try:
                async with self._writing:
                    await self._write(ended=True)
            except KcmError as error:
                if self._clock.elapsed() + RETRY_S >= until:
                    log.warning(
                        "the last lease entry was not stored: kills wait until the lease has "
                        "ended: %s",
                        error.detail,
                        extra=fields(
                            region=self._me.region, instance=self._me.name, code=error.code.value
                        ),
                    )
                    return
                await asyncio.sleep(RETRY_S)
            else:
                return

    def cease(self) -> None:
        """End the lease permanently: by the roster, this instance may not act any more."""
        self._closing = self._ceased = True
        self._freshness.forget()
        self._tell_changed()

    def restart(self) -> None:
        """The stream was rolled back: our first sequence has no meaning in the new one."""
        self._freshness.forget()
        self.incarnations.doubted(self._clock.elapsed())
        self._first = BEFORE_EVERYTHING
        self._tell_changed()

    def take(self, entry: Entry) -> None:
        """Process a delivered lease entry; raises ``Untrusted``."""
        now = self._clock.elapsed()
        if now >= self._freshness.lease.until():
            self._freshness.registry.lapsed()  # before a delivered entry can renew it
        if not entry.data:
            # The broker reports that an entry expired; no signature proves that.
            self._tampered(entry.subject, now, expired=True)
            return
        try:
            lease = self._me.verifier.lease(entry.data)
            if entry.subject != subjects.control_lease(
                lease.region, lease.instance, lease.incarnation
            ):
                raise Forged("the lease entry has the subject of another one", lease.instance)
        except Untrusted:
            self._tampered(entry.subject, now)
            raise
        own = (lease.instance, lease.incarnation) == (self._me.name, self._me.incarnation)
        if not self._freshness.leased(LogPosition(entry.sequence, lease.nonce), own=own):
            self.lost("another lease entry was read back than was acknowledged")
            return
        self.incarnations.take(lease, entry.sequence, now)
        told = not lease.ended and lease.first and lease.registry
        if lease.role is Role.CORE and not own and told:
            lease_s = lease.lease_ms / 1000
            known = self._freshness.registry
            ours = self._revocations.registry_digests
            if known.heard(lease.instance, lease.registry, ours, lease_s, now):
                self._registry_differs()
        # The first lease entry of an incarnation is written before it has caught up.
        if lease.role is Role.CORE and lease.first and not own and self.differs(lease, now):
            self.lost(f"{lease.instance} knows other holds than were read here")

    def _pause_s(self) -> float:
        """Seconds between the last lease entry and the next one."""
        every = self._freshness.timing.renew_every_s
        core = self._me.role is Role.CORE
        return min(every, SHOW_S) if core and self._shown != self._shows() else every

    def _shows(self) -> list[bytes]:
        """The registry digests for our own lease entry; empty if the registry is not remembered."""
        known = self._freshness.registry
        return self._revocations.registry_digests if known.remembers else []

    def _tampered(self, subject: str, now: float, *, expired: bool = False) -> None:
        """An incarnation's subject has an entry that the incarnation did not sign."""
        key = subjects.control_lease_of(subject)
        if key is not None and not (expired and not self.incarnations.knows(*key)):
            self.incarnations.tampered(*key, now)

    def differs(self, lease: Lease, now: float) -> bool:
        """Whether a Core has shown other holds than ours for longer than a difference may last."""
        ours = self._revocations.holds.digest
        # Under another roster, other holds count.
        theirs = lease.holds if lease.roster == self._judged() else ours
        return self._divergence.heard(lease.instance, theirs, ours, now)

    async def _write_next(self) -> LogPosition:
        async with self._writing:
            self._next = None  # later callers need a write that begins later
            if self._closing:
                raise KcmError(Code.UNAVAILABLE, "this incarnation has ended")
            return await self._write()

    async def _write(self, *, ended: bool = False) -> LogPosition:
        began, seen = self._clock.elapsed(), self._freshness.lease.seen
        nonce, era = self._random.public(limits.ID_SIZE), self._freshness.era
        lease = Lease(
            instance=self._me.name,
            incarnation=self._me.incarnation,
            role=self._me.role,
            region=self._me.region,
            nonce=nonce,
            first=self._first,
            lease_ms=int(self._freshness.timing.control_lease_s * 1000),
            holds=self._revocations.holds.digest,
            registry=self._shows(),
            roster=self._judged(),
            ended=ended,
        )
        body = encode(self._me.identity.sign(Kind.LEASE, lease))
        try:
            sequence = await self._stream.put(
                self._subject, body, expected=self._expected, ttl=LEASE_TTL
            )
        except KcmError as error:
            if error.code is Code.CONFLICT:
                await self._look()
            raise KcmError(Code.UNAVAILABLE, "the region's stream did not acknowledge") from None
        self._expected = sequence
        position = LogPosition(sequence, nonce)
        if self._ceased:
            raise KcmError(Code.UNAVAILABLE, "this instance may not act any more")
        if era != self._freshness.era:
            raise KcmError(Code.UNAVAILABLE, "the region's stream is being read again")
        if not self._freshness.wrote(began, seen, position):
            self.lost("a write was acknowledged where something was seen before")
            raise KcmError(Code.UNAVAILABLE, "the region's stream went back")
        self._first = self._first or sequence
        self._wrote, self._shown = began, lease.registry
        self._tell_changed()  # an earlier entry may count as read back by this one
        return position

    async def _look(self) -> None:
        """Our last lease entry is not where it was acknowledged: find out why."""
        stored = await self._stream.last(self._subject)
        if self._ceased:
            return
        self._expected = stored.sequence if stored is not None else 0
        try:
            lease = self._me.verifier.lease(stored.data) if stored and stored.data else None
        except Untrusted:
            lease = None
        own = lease is not None and (lease.instance, lease.incarnation) == (
            self._me.name,
            self._me.incarnation,
        )
        # A later entry of ours lost its acknowledgement: it, too, replaced the previous one.
        if (
            lease is None
            or not own
            or not self._freshness.adopt(LogPosition(self._expected, lease.nonce))
        ):
            self.lost("the stream lacks the last lease entry that it acknowledged")
        self._tell_changed()

    def lost(self, why: str) -> None:
        """The stream was rolled back or delivered incorrectly: forget all and replay it."""
        log.error(
            "nothing is served until the region's stream was read again from its start: %s",
            why,
            extra=fields(region=self._me.region, stream=subjects.CONTROL_STREAM),
        )
        self.restart()
        self._went_back()


def _seen(task: asyncio.Task[LogPosition]) -> None:
    if not task.cancelled():
        task.exception()  # each waiting caller gets it; it is no fault if none waits
