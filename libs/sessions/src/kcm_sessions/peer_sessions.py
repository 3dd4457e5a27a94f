"""A caller's sessions with two instances of a region, its *peers*: two Cores, or two Gateways.

A request goes to the session with fewer requests in flight. If a peer cannot be reached, is busy or
cannot serve, or refuses without a seal, the other one is asked, and a third one takes its place. A
session is replaced at half of its lifetime, in the background, so that no request waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import Final

from kcm_runtime.clock import Clock
from kcm_runtime.tasks import TaskSet
from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Instance
from kcm_sealing.memory import Lend, SecretRandomness
from kcm_trust.verify import Untrusted

from kcm_sessions.caller import Caller
from kcm_sessions.session_opener import OPEN_S, Ask, Elsewhere, PeerSession, SessionOpener

WANTED: Final = 2
"""Peers with which a caller holds sessions."""

RENEW_S: Final = limits.TICKET_MAX_MS / 2000
"""Seconds of age at which a session is replaced."""

END_S: Final = limits.TICKET_MAX_MS / 1000 - 60
"""Seconds of age from which a session takes no request: no ticket ends before its request does."""

TICKET_S: Final = limits.TICKET_MAX_MS / 1000
"""Seconds after which the keys of a session are wiped, whether it is used or not."""

AVOID_S: Final = 1.0
"""Seconds for which a peer that failed is asked only if there is no other. A failure after them,
without a reply in between, doubles them, up to ``AVOID_MAX_S``."""

AVOID_MAX_S: Final = 30.0

SEEK_S: Final = 5.0
"""Seconds between two attempts to open another session in the background."""

REOPEN_S: Final = 2.0
"""Seconds between two sessions with one peer that are given up because a refusal without a seal
says so: any client of the broker can say it, and a peer remembers every ticket."""

_CLOCK_STEP_MS: Final = 1_000
"""Milliseconds by which the wall clock and the elapsed clock may diverge in a session. A peer
compares the ticket with a clock, so after a step of the wall clock the session is replaced."""


class PeerSessions:
    """Opens sessions, and chooses one for each request."""

    def __init__(
        self,
        ask: Ask,
        me: Caller,
        clock: Clock,
        randomness: SecretRandomness,
        lend: Lend,
        open_s: float = OPEN_S,
    ) -> None:
        """``lend`` makes the memory of a session, which owns it.

        A peer has ``open_s`` seconds to answer each request that begins one.
        """
        self._opener: Final = SessionOpener(ask, me, clock, randomness, lend, open_s)
        self._me: Final = me
        self._clock: Final = clock
        self._open: Final[dict[str, PeerSession]] = {}
        self._opening: Final[dict[str, asyncio.Task[PeerSession]]] = {}
        self._avoid: Final[dict[str, tuple[float, float]]] = {}
        """Until when a peer is avoided, by ``clock.elapsed``, and for how many seconds."""
        self._doubted: Final[dict[str, float]] = {}
        """When a session was last given up because of a refusal without a seal."""
        self._turns = 0
        self._timers: Final[dict[asyncio.TimerHandle, PeerSession]] = {}
        """Every session whose keys may be readable, with the timer that wipes them."""
        self._seek_at = 0.0
        self._tasks: Final = TaskSet()
        self._closed = False
        me.listen(self._judge_again)

    @property
    def names(self) -> list[str]:
        """The peers of this region that may act, in an order of this caller's own."""
        names = [
            one.instance for one in self._all if not self._me.held(one.instance, one.public_key)
        ]
        return sorted(names, key=self._rank)

    @property
    def _held(self) -> list[str]:
        return [one.instance for one in self._all if self._me.held(one.instance, one.public_key)]

    @property
    def _all(self) -> list[Instance]:
        """The peers of this region on the roster that are neither retired nor embedded."""
        wanted = (self._me.peers, self._me.region, None, None)
        return [
            one
            for one in self._me.verifier().roster.instances
            if (one.role, one.region, one.retired, one.application) == wanted
        ]

    async def choose(self, without: Collection[str] = ()) -> PeerSession:
        """Return a session with a peer that is not in ``without``; opens one if there is none.

        Raises ``KcmError``: ``Elsewhere`` for the peer that could not be reached last.
        """
        if self._closed:
            raise _closed()
        self._end_old()
        ready = [one for one in self._open.values() if one.peer not in without]
        calm = [one for one in ready if not self._avoided(one.peer)]
        if calm or ready:
            chosen = min(calm or ready, key=lambda one: (one.in_flight, one.turn))
        else:
            chosen = await self._first(without)
        self._turns += 1
        chosen.turn = self._turns
        self._seek()
        return chosen

    async def several(self) -> list[PeerSession]:
        """Return the open sessions; opens one, with any peer that can be reached, if there is none.

        Raises ``KcmError``: ``Elsewhere`` for a peer that answered, or else for the last one.
        """
        refused: dict[str, Elsewhere] = {}
        while True:
            try:
                await self.choose(refused)
            except Elsewhere as error:
                refused[error.peer] = error
                if not self.others(refused):
                    raise next((one for one in refused.values() if not one.away), error) from None
            else:
                return list(self._open.values())

    async def incarnation(self, peer: str) -> bytes:
        """Ask a peer which incarnation of it is alive; raises ``Elsewhere`` if none answers.

        A broker can answer with an earlier statement of the same incarnation.
        """
        return await self._opener.incarnation(peer)

    def failed(self, peer: str) -> None:
        """Avoid a peer for a moment, the longer the more often it fails.

        Failures while it is avoided count once: many requests may fail together.
        """
        if self._avoided(peer):
            return
        _, last_s = self._avoid.get(peer, (0.0, AVOID_S / 2))
        avoid_s = min(2 * last_s, AVOID_MAX_S)
        self._avoid[peer] = (self._clock.elapsed() + avoid_s, avoid_s)

    def answers(self, session: PeerSession) -> None:
        """A peer sealed a reply: it is reached."""
        session.answered = self._clock.elapsed()
        self._avoid.pop(session.peer, None)

    def forget(self, session: PeerSession) -> None:
        """Use a session no more."""
        if self._open.get(session.peer) is session:
            del self._open[session.peer]
        session.forget()

    def doubt(self, session: PeerSession) -> bool:
        """Forget a session of which an unsealed refusal says that it is not known.

        Returns ``False`` if it is kept, because one with this peer was given up a moment ago: a
        forger makes no flood of tickets.
        """
        now = self._clock.elapsed()
        if now - self._doubted.get(session.peer, -REOPEN_S) < REOPEN_S:
            self.failed(session.peer)
            return session.forgotten  # by another request, which doubted the same session
        self._doubted[session.peer] = now
        self.forget(session)
        return True

    def acts(self, session: PeerSession) -> bool:
        """Whether the peer of a session may act, with the key that it had when it opened it."""
        try:
            entry = self._me.peer(session.peer)
        except Untrusted:
            return False
        had = (self._me.peers, self._me.region, session.public_key)
        return (entry.role, entry.region, entry.public_key) == had

    def close(self) -> None:
        """Wipe the keys of all sessions, and open no more."""
        self._closed = True
        self._tasks.close()
        for task in self._opening.values():
            task.cancel()
        for timer, session in self._timers.items():
            timer.cancel()
            session.keys.close()
        self._timers.clear()
        self._open.clear()

    def others(self, without: Collection[str]) -> bool:
        """Whether there is a peer that is not in ``without``."""
        return any(name not in without for name in self.names)

    async def _first(self, without: Collection[str]) -> PeerSession:
        """Open a session with the first peer of this caller's order, avoided ones last."""
        names = [name for name in self.names if name not in without]
        if not names:
            peer = self._me.peers.value.capitalize()
            text = f"the roster has no other {peer} in region {self._me.region}"
            held = ", ".join(self._held)
            if held:
                text += f", and operators took these out of service: {held}"
            raise KcmError(Code.UNAVAILABLE, text)
        name = min(names, key=self._avoided)
        session = await self._opened(name)
        if self._open.get(name) is not session:
            text = f"the roster changed while a session with {name} began"
            raise Elsewhere(name, KcmError(Code.UNAVAILABLE, text), sent=False)
        return session

    def _seek(self) -> None:
        """Open another session, or replace one that is half over, in the background."""
        now = self._clock.elapsed()
        if not self._open or now < self._seek_at or len(self._tasks):
            return
        old = [one.peer for one in self._open.values() if now - one.opened >= RENEW_S]
        missing = WANTED - sum(not self._avoided(peer) for peer in self._open)
        if not old and missing <= 0:
            return
        self._seek_at = now + SEEK_S
        new = [name for name in self.names if name not in self._open and not self._avoided(name)]
        wanted = [*old, *new[: max(0, missing)]]
        if wanted:
            self._tasks.spawn(self._open_each(wanted))

    async def _open_each(self, names: Collection[str]) -> None:
        for name in names:
            with suppress(KcmError):
                await self._opened(name)
            if self._closed:
                return

    async def _opened(self, peer: str) -> PeerSession:
        """Open a session with this peer; concurrent callers share one attempt."""
        task = self._opening.get(peer)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._begin(peer))
            self._opening[peer] = task
            task.add_done_callback(partial(self._has_begun, peer))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if task.cancelled() and own is not None and not own.cancelling():
                raise _closed() from None
            raise

    def _has_begun(self, peer: str, task: asyncio.Task[PeerSession]) -> None:
        self._opening.pop(peer, None)
        if not task.cancelled() and task.exception() is not None:
            self.failed(peer)  # a caller that still waits gets the exception, too

    async def _begin(self, peer: str) -> PeerSession:
        """Open a session, in place of an earlier one; raises ``Elsewhere``."""
        session = await self._opener.open(peer)
        if self._closed:
            session.keys.close()
            raise _closed()
        before = self._open.pop(peer, None)
        if before is not None:
            before.forget()
        self._open[peer] = session
        self._avoid.pop(peer, None)
        self._wipe_later(session)
        spare = [
            one for one in self._open.values() if self._avoided(one.peer) and one is not session
        ]
        if len(self._open) > WANTED and spare:
            self.forget(spare[0])
        return session

    def _wipe_later(self, session: PeerSession) -> None:
        """Wipe a session's keys when its ticket ends, also if no request comes until then."""

        def wipe() -> None:
            self._timers.pop(timer, None)
            self.forget(session)
            session.keys.close()

        timer = asyncio.get_running_loop().call_later(TICKET_S, wipe)
        self._timers[timer] = session

    def _end_old(self) -> None:
        """Forget sessions that are almost over, and all after a step of the wall clock."""
        now, now_ms = self._clock.elapsed(), self._clock.unix_ms()
        for one in list(self._open.values()):
            age_s = now - one.opened
            step_ms = now_ms - one.keys.info.issued_ms - age_s * 1000
            if not 0 <= age_s < END_S or abs(step_ms) >= _CLOCK_STEP_MS:
                self.forget(one)

    def _judge_again(self, names: frozenset[str]) -> None:
        """Forget sessions with peers whose roster entry changed."""
        for name in names & self._open.keys():
            self.forget(self._open[name])

    def _avoided(self, peer: str) -> bool:
        return self._clock.elapsed() < self._avoid.get(peer, (0.0, 0.0))[0]

    def _rank(self, peer: str) -> bytes:
        """Spread callers over the peers: each has its own order."""
        return sha256(self._me.incarnation + peer.encode()).digest()


def _closed() -> KcmError:
    return KcmError(Code.UNAVAILABLE, "the client is closed")
