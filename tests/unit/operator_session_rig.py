"""An operator with sessions at Cores in memory, over a broker to which an attacker listens."""

from __future__ import annotations

import os
from typing import Any

from kcm._internal.core_calls import CoreCalls, Order, subject_of
from kcm._internal.session_memory import SessionRandomness
from kcm_schemas import subjects
from kcm_schemas.codec import Message, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import Failure
from kcm_schemas.roster import Role
from kcm_sessions.caller import Caller

from tests.unit.admin_requests import request
from tests.unit.core_rig import VERIFIER, Core
from tests.vectors.families.messages import identity


class Desk:
    """One process of an operator; ``heard`` is all that crosses the broker."""

    def __init__(self, *cores: Core, name: str = "admin", key: str = "") -> None:
        self.cores = {core.me.name: core for core in cores}
        self.heard: list[tuple[str, bytes]] = []
        self.answers: list[bytes] = []
        self.loses = False
        """Whether requests are heard, and reach no Core."""
        self.key = key or name
        self.clock = cores[0].world.clock
        me = Caller(
            name=name,
            region="eu",
            incarnation=os.urandom(16),
            sign=identity(self.key).sign_raw,
            verifier=lambda: VERIFIER,
            listen=lambda _: None,
            peers=Role.CORE,
            subject_of=subject_of,
        )
        self.calls = CoreCalls(me, self.send, self.clock, SessionRandomness())

    async def send(self, subject: str, body: bytes, timeout_s: float = 1.0) -> bytes:
        """As the broker carries it, and as the Core's server answers it."""
        self.heard.append((subject, body))
        tokens = subject.split(".")
        core = self.cores.get(tokens[4] if tokens[3] == "core" else tokens[-1])
        if core is None or (self.loses and tokens[3] == "admin"):
            raise KcmError(Code.UNAVAILABLE, "no instance serves this at the moment")
        answer = await deliver(core, subject, body)
        self.answers.append(answer)
        return answer

    async def ask(
        self, noun: str, verb: str, payload: Message, *, signer: str = "", at: str = "core-eu"
    ) -> tuple[Code, str]:
        """The code of the signed answer, and the Core that gave it."""

        def sign(core: str, incarnation: bytes, _deadline_ms: int) -> bytes:
            by = signer or self.key
            return request(
                self.cores[core], noun, verb, payload, signer=by, incarnation=incarnation
            )

        order = Order(noun, verb, sign, at)
        answer = await self.calls.ask(order, self.clock.elapsed() + 5)
        reply, by = VERIFIER.admin_reply(answer.reply)
        assert by.instance == answer.core
        return reply.code, answer.core

    def captured(self) -> list[tuple[str, bytes]]:
        """The sealed requests among what was heard."""
        return [(subject, body) for subject, body in self.heard if ".admin." in subject]


async def deliver(core: Core, subject: str, body: bytes) -> bytes:
    """Have a Core serve what came on one of its subjects."""
    handle: Any = core.sealed_admin.handle if ".admin." in subject else core.keys.begin
    try:
        answer: bytes = await handle(subject, body)
    except KcmError as error:
        return encode(Failure(v=1, error=error.code, detail=error.detail))
    return answer


def moved(subject: str, core: Core) -> str:
    """The subject of a request, for another Core."""
    noun, verb = subjects.read_admin_at(subject, subject.rsplit(".", maxsplit=1)[-1])
    return subjects.admin_at("eu", noun, verb, core.me.name)
