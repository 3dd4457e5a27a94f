"""A thief in the memory of a Gateway: it has the Gateway's key, and sees what passes through it.

It asks Cores of its region for keys in the Gateway's name, again and again: for keys for which no
application asks, with asks of other keys, tenants, Gateways and times. It sends copies of requests,
and what began a session once more. It needs no hold to be lifted and keeps none.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from kcm._internal.session_memory import SessionMemory
from kcm_schemas import data_subjects
from kcm_schemas.asks import Ask, Asked
from kcm_schemas.codec import encode, pack
from kcm_schemas.codes import KcmError
from kcm_schemas.roster import Role
from kcm_sessions.caller import Caller
from kcm_sessions.peer_sessions import PeerSessions

from tests.simulation.clocks import SimClock, SimRandomness
from tests.simulation.instance import read
from tests.simulation.sessions import begin
from tests.simulation.trust import identity
from tests.simulation.vault import SERVICE

if TYPE_CHECKING:
    from tests.simulation.asks import Made
    from tests.simulation.world import World

EVERY_S: Final = 0.4
"""Seconds between two things that it tries."""

TIMEOUT_S: Final = 2.0
"""Seconds that a Core gets to answer."""

KEPT: Final = 40
"""The last requests of which it sends copies, and asks that it uses."""


class Thief:
    """Beside one Gateway, from its first incarnation on."""

    def __init__(self, world: World, name: str) -> None:
        who = world.members[name]
        self._world: Final = world
        self._name: Final = name
        self._region: Final = who.region
        self.node: Final = world.loop.node(f"thief-{name}")
        self._clock: Final = SimClock(world.loop, self.node)
        self._connection: Final = world.network.connect(
            self.node, who.region, "region", side=who.side
        )
        self._incarnation = b""
        self._sessions: PeerSessions | None = None
        self._began: list[tuple[str, bytes]] = []
        self._sent: list[tuple[str, bytes]] = []

    async def work(self) -> None:
        """Try something, and another thing, without waiting for what comes of it."""
        tries = (self._alone, self._asked, self._asked, self._swapped, self._again, self._reopened)
        while True:
            await asyncio.sleep(EVERY_S)
            victim = self._world.running.get(self._name)
            if victim is not None and victim.incarnation != self._incarnation:
                self._steal(victim.incarnation)
            if self._sessions is not None:
                trying = self._world.random.choice(tries)
                task = asyncio.get_running_loop().create_task(self._try(trying))
                task.add_done_callback(lambda done: done.cancelled() or done.result())

    def _steal(self, incarnation: bytes) -> None:
        """Open sessions as this incarnation of the Gateway."""
        me = Caller(
            name=self._name,
            region=self._region,
            incarnation=incarnation,
            sign=identity(self._name).sign_raw,
            verifier=lambda: self._world.verifier,
            listen=lambda _: None,
            peers=Role.CORE,
            subject_of=data_subjects.core_session,
        )
        self._incarnation = incarnation
        randomness = SimRandomness(self._world.random)
        self._sessions = PeerSessions(self._begin, me, self._clock, randomness, SessionMemory)

    async def _begin(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        if body:
            self._began.append((subject, body))
        return await begin(self._connection, subject, body, timeout_s)

    async def _try(self, trying: Any) -> None:
        self._world.coverage.saw("a thief in a Gateway")
        try:
            await trying()
        except KcmError:
            return

    async def _alone(self) -> None:
        """A key for which it has no ask."""
        if known := self._known():
            made = self._world.random.choice(known)[1]
            await self._send(made.core, made.tenant, made.wrapped)

    async def _asked(self) -> None:
        """What an application asked, through this Gateway or another one, now or before."""
        if known := self._known():
            ask, made = self._world.random.choice(known)
            await self._send(made.core, made.tenant, made.wrapped, (ask, made))

    async def _swapped(self) -> None:
        """Another key, perhaps of another tenant, with somebody's ask."""
        if known := self._known():
            (ask, made), (_, other) = self._world.random.choices(known, k=2)
            await self._send(made.core, other.tenant, other.wrapped, (ask, made))

    async def _again(self) -> None:
        """A copy of what it sent."""
        if self._sent:
            subject, body = self._world.random.choice(self._sent[-KEPT:])
            read(await self._connection.request(subject, body, TIMEOUT_S))

    async def _reopened(self) -> None:
        """What began a session, and then a copy."""
        if self._began and self._sent:
            subject, body = self._world.random.choice(self._began[-2:])
            await begin(self._connection, subject, body, TIMEOUT_S)
            subject, body = self._world.random.choice(self._sent[-KEPT:])
            await self._connection.request(subject, body, TIMEOUT_S)

    def _known(self) -> list[tuple[Ask, Made]]:
        """The last asks of its region, which it may have seen."""
        known = self._world.asks.all[-KEPT:]
        return [one for one in known if self._world.members[one[1].core].region == self._region]

    async def _send(
        self, core: str, tenant: str, wrapped: bytes, by: tuple[Ask, Made] | None = None
    ) -> None:
        """Ask a Core for a key, in the Gateway's name."""
        if self._sessions is None:
            return
        others = [name for name in self._sessions.names if name != core]
        session = await self._sessions.choose(others)
        deadline_ms = self._clock.unix_ms() + int(TIMEOUT_S * 1000)
        info, asks = session.keys.info, []
        if by is not None:
            ask, made = by
            asked = Asked(
                app=made.caller.app,
                session_id=ask.session_id,
                deadline_ms=ask.deadline_ms,
                count=1,
                tag=ask.tag(0),
            )
            asks.append(encode(asked))
        body = pack([info.caller, info.session_id, session.begin(), deadline_ms, [wrapped], asks])
        subject = data_subjects.core(self._region, session.peer, "unwrap", tenant, SERVICE)
        self._sent.append((subject, body))
        try:
            read(await self._connection.request(subject, body, TIMEOUT_S))
        except KcmError:
            self._sessions.doubt(session)
            raise
        finally:
            session.end()
