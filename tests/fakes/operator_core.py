"""Cores and the Auditor of one region in memory, as far as operators ask them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from kcm._internal.session_memory import SessionMemory, SessionRandomness
from kcm_core.api.operator_sessions import operator_sessions
from kcm_core.api.sealed_admin import SealedAdminRequests
from kcm_runtime.clock import Clock
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.roster.store import Rosters
from kcm_schemas import data_subjects, limits, subjects
from kcm_schemas.admin.requests import CLEAR, AdminReply, AdminRequest
from kcm_schemas.codec import Message, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.signed import Kind
from kcm_sessions.session_keys import SessionKeys
from kcm_trust.identity import Identity, digest
from kcm_trust.verify import Verifier

from tests.fakes.refusals import failure

Script = Callable[[str, bytes], Awaitable[bytes | None]]
"""May answer a request in the fake's place; none lets the fake answer."""


Handler = Callable[[AdminRequest, str], Message]
"""Answers a verified request (and its operator's name), or raises ``KcmError``."""


class FakeCore:
    """Cores and Auditor of one region: believes only what is signed, and signs what it says.

    Sessions and seals are the product's.
    """

    def __init__(
        self,
        region: str,
        identity: Identity,
        auditor: Identity,
        verifier: Verifier,
        clock: Clock,
    ) -> None:
        self.region = region
        self.identity = identity
        self.auditor = auditor
        self.verifier = verifier
        self.handlers: dict[tuple[str, str], Handler] = {}
        self.forge: Callable[[AdminReply, AdminRequest], bytes] | None = None
        self.down = False
        self.hangs = False
        """Whether it takes everything and answers nothing."""
        self.dying = 0
        """Requests that it takes, and never answers."""
        self.requests: list[AdminRequest] = []
        self.subjects: list[str] = []
        self.wire: list[tuple[str, bytes]] = []
        """Everything that a tap hears."""
        self.bend: Script | None = None
        """Answers, in the place of the broker, what is sealed or begins a session."""
        self.mates: dict[str, FakeCore] = {}
        """Other Cores of the region, by name."""
        self.clock = clock
        self.restart()

    def restart(self) -> None:
        """Begin another incarnation: it knows no session."""
        me = InstanceContext(
            self.identity,
            self.verifier.instance(self.identity.name),
            Rosters(self.verifier),
            os.urandom(limits.ID_SIZE),
        )
        randomness = SessionRandomness()
        host = Host(me, self.clock, randomness, lambda *_args, **_fields: None)
        self.incarnation = me.incarnation
        self.keys = SessionKeys(host, randomness, SessionMemory)
        self.sessions = operator_sessions(host, self.keys, SessionMemory)
        served: Any = SimpleNamespace(handle=self._serve)
        self.sealed = SealedAdminRequests(host, self.sessions, served)

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        assert timeout_s > 0
        tokens = subject.split(".")
        named = tokens[4] if tokens[3] == "core" else "".join(tokens[6:])
        if named in self.mates:
            return await self.mates[named].request(subject, body, timeout_s)
        self.wire.append((subject, body))
        await asyncio.sleep(0)
        if self.down or named not in ("", self.identity.name):
            raise KcmError(Code.UNAVAILABLE, "no instance serves this at the moment")
        if self.hangs:
            await asyncio.sleep(timeout_s)
            raise KcmError(Code.DEADLINE_EXCEEDED, "no answer in time")
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self.bend(subject, body) if self.bend else None
                return await self._answer(tokens, subject, body) if answer is None else answer
        except TimeoutError:
            raise KcmError(Code.DEADLINE_EXCEEDED, "no answer in time") from None

    async def _answer(self, tokens: list[str], subject: str, body: bytes) -> bytes:
        try:
            if tokens[3] == "core":
                open_one = tokens[5] == data_subjects.OPEN_OPERATOR
                return self.sessions.begin(body) if open_one else self.keys.statement()
            if tokens[6:]:
                return await self.sealed.handle(subject, body)
        except KcmError as error:
            return failure(error.code, error.detail)
        return await self._serve(subject, body)

    async def _serve(self, subject: str, body: bytes, caller: str = "") -> bytes:
        """Serve a signed request, which came in a session if there is a ``caller``."""
        request, operator, _ = self.verifier.admin(body)
        place = (request.noun, request.verb)
        if request.noun == "auditor":
            assert subject == subjects.auditor(self.region, request.verb)
        elif place in CLEAR:
            assert subject == subjects.admin(self.region, *place)
        else:
            assert subject == subjects.admin_at(self.region, *place, self.identity.name)
            assert (request.instance, caller) == (self.identity.name, operator)
            assert request.incarnation == self.incarnation
        self.subjects.append(subject)
        self.requests.append(request)
        if self.dying:
            self.dying -= 1
            await asyncio.Event().wait()
        code, detail, payload = Code.OK, "", b""
        try:
            payload = encode(self.handlers[place](request, operator))
        except KcmError as error:
            code, detail = error.code, error.detail
        reply = AdminReply(request=digest(body), code=code, detail=detail, payload=payload)
        if self.forge is not None:
            return self.forge(reply, request)
        signer = self.auditor if request.noun == "auditor" else self.identity
        return encode(signer.sign(Kind.ADMIN_REPLY, reply))

    async def close(self) -> None:
        return
