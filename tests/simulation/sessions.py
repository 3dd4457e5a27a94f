"""Sessions with Cores and asks, as production has them; their messages are not sealed here.

A Gateway and an application open sessions by the code of ``kcm_sessions``, a Core judges Gateways
and asks by its own classes, and the SDK's code makes the asks. What is left out is the sealing of
requests and replies, and that a Gateway carries what begins an application's session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from kcm._internal.core_asks import CoreAsks
from kcm._internal.session_memory import SessionMemory
from kcm_core.api.asks import Asks, Unwrap
from kcm_core.api.core_call import copied
from kcm_core.api.gateway_sessions import GatewaySessions, RosterCallers
from kcm_gateway.core_client import caller_of
from kcm_gateway.keys.asks import AskPart
from kcm_killswitch.model.held_keys import HeldKeys
from kcm_schemas import data_subjects
from kcm_schemas.asks import Asked
from kcm_schemas.codec import encode, pack
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data_subjects import DataSubject
from kcm_schemas.roster import Instance, Role
from kcm_schemas.vault import STATUS_OK
from kcm_sessions.caller import Caller as SessionCaller
from kcm_sessions.peer_sessions import PeerSessions
from kcm_sessions.replies import Replies
from kcm_sessions.session_keys import SessionKeys
from kcm_sessions.session_opener import PeerSession
from kcm_sessions.sessions import INSTANCES, Sessions

from tests.simulation.apps import Caller
from tests.simulation.asks import Made
from tests.simulation.clocks import SimRandomness
from tests.simulation.instance import read
from tests.simulation.messages import SimConnection
from tests.simulation.vault import SERVICE

if TYPE_CHECKING:
    from tests.simulation.core import SimCore
    from tests.simulation.gateway import SimGateway
    from tests.simulation.people import Client

ASKED_S: Final = 5.0
"""Seconds for which an application asks."""

L3_VERSION: Final = 1
"""The version of every tenant's service key."""


class SimGatewaySessions(GatewaySessions):
    """Production's, in memory that is not locked."""

    def __init__(self, core: SimCore, keys: SessionKeys, held: HeldKeys) -> None:
        Sessions.__init__(
            self, core.host, keys, RosterCallers(core.me, held), SessionMemory, INSTANCES
        )
        self._incarnations = core.switch.registered


class CoreDoor:
    """What a Core checks of those who ask it; composed as ``kcm_core.assembly.key_service``."""

    def __init__(self, core: SimCore) -> None:
        self._core: Final = core
        self.held: Final = HeldKeys(core.revocations, "instance")
        keys = SessionKeys(core.host, core.randomness, SessionMemory)
        self.gateways: Final = SimGatewaySessions(core, keys, self.held)
        self.asks: Final = Asks(core.host, keys, core.applications, SessionMemory)

    async def begin(self, subject: str, body: list[Any]) -> list[Any]:
        """Serve what begins a session."""
        if data_subjects.read_session(subject) == data_subjects.OPEN_APP:
            return [self.asks.sessions.begin(body[0])]
        return [await self.gateways.handle(subject, body[0])]

    def enter(self, caller: str, session_id: bytes, counter: int) -> Instance:
        """Take a request of a Gateway, once, as ``WrapApi`` does; raises ``KcmError``."""
        session, entry = self.gateways.session(caller, session_id)
        if not session.window.take(counter):
            raise copied()
        self._core.world.asks.taken(self._core, session_id, counter)
        if not self.gateways.registered(session):
            raise KcmError(Code.UNAVAILABLE)
        return entry

    def judge(
        self, gateway: Instance, asked: DataSubject, keys: list[bytes], by: Sequence[Asked]
    ) -> None:
        """Raise unless applications ask for all of these keys through the Gateway."""
        unwrap = Unwrap(gateway, asked, L3_VERSION, memoryview(b"".join(keys)))
        for verdict in self.asks.judge(unwrap, by):
            if verdict.status != STATUS_OK:
                raise KcmError(verdict.code)
        self._core.world.asks.opened(self._core, gateway, asked.tenant, keys, by)


async def begin(connection: SimConnection, subject: str, body: bytes, timeout_s: float) -> bytes:
    """Ask for what begins a session; raises ``KcmError``."""
    (answer,) = read(await connection.request(subject, pack([body]), timeout_s))
    return bytes(answer)


class GatewayCores:
    """The sessions of one incarnation of a Gateway with Cores."""

    def __init__(self, gateway: SimGateway) -> None:
        self._region: Final = gateway.who.region
        self._clock: Final = gateway.clock
        self.connection: Final = gateway.region_bus

        async def ask(subject: str, body: bytes, timeout_s: float) -> bytes:
            return await begin(self.connection, subject, body, timeout_s)

        me = caller_of(gateway.me, HeldKeys(gateway.revocations, "instance"))
        self.sessions: Final = PeerSessions(
            ask, me, gateway.clock, gateway.randomness, SessionMemory
        )
        self._replies: Final = Replies(self.sessions, "")

    async def request(
        self, operation: str, tenant: str, keys: list[bytes], part: AskPart | None, timeout_s: float
    ) -> list[Any]:
        """Ask a Core, one that the application asks if that is known; as ``CoreClient``, once."""
        cores = part.cores if part else self.sessions.names
        session = await self.sessions.choose(set(self.sessions.names).difference(cores))
        if session.peer not in cores:
            raise KcmError(Code.UNKNOWN_ASK)
        by = [encode(part.asked(session.peer, len(keys)))] if part else []
        subject = data_subjects.core(self._region, session.peer, operation, tenant, SERVICE)
        counter, sent = session.begin(), self._clock.elapsed()
        deadline_ms = self._clock.unix_ms() + int(timeout_s * 1000)
        info = session.keys.info
        body = pack([info.caller, info.session_id, counter, deadline_ms, keys, by])
        try:
            answer = await self.connection.request(subject, body, timeout_s)
        except KcmError as error:
            raise self._replies.unreached(session, error, sent) from None
        finally:
            session.end()
        try:
            done = read(answer)
        except KcmError as error:
            if error.code is Code.UNKNOWN_SESSION:
                self.sessions.doubt(session)
            raise
        self.sessions.answers(session)
        return done


class Asker:
    """One key of an application in one region: it asks Cores, through one Gateway at a time."""

    def __init__(self, client: Client, caller: Caller, sign: Callable[[bytes], bytes]) -> None:
        self._client: Final = client
        self._caller: Final = caller
        self._told: list[PeerSession] = []
        region, world = client.region, client.world

        async def carry(core: str, verb: str, body: bytes, timeout_s: float) -> bytes:
            subject = data_subjects.core_session(region, core, verb)
            return await begin(client.to[region], subject, body, timeout_s)

        me = SessionCaller(
            name=caller.app,
            region=region,
            incarnation=world.random.randbytes(16),
            sign=sign,
            verifier=lambda: world.verifier,
            listen=lambda _: None,
            peers=Role.GATEWAY,
            subject_of=data_subjects.gateway_session,
        )
        self._asks: Final = CoreAsks(me, carry, client.clock, SimRandomness(world.random))

    async def ask(self, tenant: str, wrapped: bytes) -> tuple[str, list[bytes]]:
        """Ask for one key: the subject of a Gateway, and what it gets; raises ``KcmError``."""
        client, world = self._client, self._client.world
        here = [one for one in world.plan.members if one.region == client.region]
        gateway = world.random.choice([one.name for one in here if one.role == "gateway"])
        self._told = await self._asks.sessions()
        about = DataSubject("decrypt", tenant, SERVICE)
        names = [L3_VERSION.to_bytes(4, "big") + wrapped]
        asks = self._asks.asks(self._told, gateway, about, names, ASKED_S)
        for one in asks:
            made = Made(self._caller, one.core, gateway, tenant, wrapped, one.deadline_ms)
            world.asks.made(one, made)
        subject = data_subjects.gateway_at(
            client.region, gateway, about.operation, about.tenant, about.service
        )
        return subject, [encode(one) for one in asks]

    def doubt(self) -> None:
        """A Gateway says that Cores do not know the sessions."""
        self._asks.doubt(self._told)
