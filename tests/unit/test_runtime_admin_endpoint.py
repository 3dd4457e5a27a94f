"""The endpoint for operators' requests by itself: any table of verbs, any rules."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import pytest
from kcm_runtime.admin_endpoint import ANSWER_MAX, AdminEndpoint, RequestEvent
from kcm_runtime.clock import SystemRandomness
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.roster.store import Rosters
from kcm_schemas import limits
from kcm_schemas.admin.requests import AdminReply, AdminRequest, Empty, PutStatement
from kcm_schemas.audit import EventType
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import OperatorRole
from kcm_schemas.signed import SIGNATURES_MAX, Kind, read_signed
from kcm_trust.identity import digest
from kcm_trust.verify import Verifier

from tests.fakes.bus import Clock
from tests.unit import trust_rig
from tests.vectors.families.messages import identity

HERE = "a subject"
ids = itertools.count(1)


class Rules:
    """One subject; a verb that reads is called ``look``."""

    def __init__(self) -> None:
        self.ready = True

    def check_place(self, subject: str, request: AdminRequest) -> None:
        if (subject, request.region) != (HERE, "eu"):
            raise KcmError(Code.WRONG_REGION)

    def check_ready(self, request: AdminRequest) -> None:
        if not self.ready:
            raise KcmError(Code.UNAVAILABLE, "not ready")

    def event(self, request: AdminRequest) -> RequestEvent:
        reads = request.verb == "look"
        kind = EventType.ADMIN_TENANT_FIND if reads else EventType.ADMIN_TENANT_PUT
        return RequestEvent(kind, {"tenant": "acme"}, reads=reads)


class CountingVerifier(Verifier):
    """Counts the signatures that are verified."""

    verified = 0

    def _holds(self, public: bytes, signature: bytes, message: bytes) -> bool:
        self.verified += 1
        return super()._holds(public, signature, message)


class Bench:
    """An endpoint with the verbs ``thing put`` and ``thing look``."""

    def __init__(self) -> None:
        self.clock = Clock(1_000_000.0)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.calls: list[tuple[str, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.payload = b""
        self.rules = Rules()
        self.verifier = CountingVerifier(trust_rig.roster())
        self.me = self.instance("core-eu")
        self.endpoint = self.serving(self.me)

    def instance(self, name: str) -> InstanceContext:
        joined = self.verifier.instance(name)
        return InstanceContext(identity(name), joined, Rosters(self.verifier), bytes(16))

    def serving(self, me: InstanceContext) -> AdminEndpoint:
        endpoint = AdminEndpoint(
            Host(me, self.clock, SystemRandomness(), self._emit), "here", self.rules
        )
        endpoint.serve("thing", {"put": self.put}, frozenset({OperatorRole.ADMIN}))
        endpoint.serve_named("thing", {"look": self._look}, roles=None)
        return endpoint

    def _emit(self, kind: str, **fields: Any) -> None:
        self.events.append((kind, fields))

    async def put(self, request: AdminRequest) -> PutStatement:
        self.calls.append((request.verb, ""))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return PutStatement(statement=self.payload)

    async def _look(self, request: AdminRequest, operator: str) -> Empty:
        self.calls.append((request.verb, operator))
        return Empty()

    def request(self, verb: str = "put", *, signer: str = "admin", **changes: Any) -> bytes:
        body = AdminRequest(
            region="eu", noun="thing", verb=verb, instance="core-eu", incarnation=bytes(16),
            request_id=next(ids).to_bytes(16, "big"),
            deadline_ms=self.clock.unix_ms() + 5000, payload=b"",
        )  # fmt: skip
        return encode(identity(signer).sign(Kind.ADMIN, body.model_copy(update=changes)))

    async def ask(self, raw: bytes, subject: str = HERE) -> AdminReply:
        reply, by = self.verifier.admin_reply(await self.endpoint.handle(subject, raw))
        assert (reply.request, by.instance) == (digest(raw), "core-eu")
        return reply

    def recorded(self) -> list[tuple[str, str | None, Code, int]]:
        """Type, operator, code and number of each event, with those that were only counted."""
        self.endpoint.close()
        return [
            (str(kind), f.get("actor"), f.get("code", Code.OK), f.get("count", 1))
            for kind, f in self.events
        ]


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_a_request_is_served_recorded_and_answered_with_a_signature(bench: Bench) -> None:
    bench.payload = b"made"
    reply = await bench.ask(bench.request())
    assert (reply.code, reply.detail) == (Code.OK, "")
    assert decode(PutStatement, reply.payload).statement == b"made"
    assert bench.recorded() == [("admin.tenant-put", "admin", Code.OK, 1)]


async def test_a_named_handler_gets_the_verified_operator(bench: Bench) -> None:
    assert (await bench.ask(bench.request("look", signer="security"))).code is Code.OK
    assert bench.calls == [("look", "security")]


async def test_what_does_not_verify_is_refused_without_a_signature_and_only_counted(
    bench: Bench,
) -> None:
    for raw in (b"garbage", bench.request(signer="gw-eu"), bench.request()[:-1] + b"?"):
        with pytest.raises(KcmError) as caught:
            await bench.endpoint.handle(HERE, raw)
        assert caught.value.code is Code.FORBIDDEN
    assert bench.calls == []
    assert {(kind, actor) for kind, actor, _, _ in bench.recorded()} == {("trust.refused", None)}


async def test_work_before_the_signature_is_bounded(bench: Bench) -> None:
    good = read_signed(bench.request())
    many = encode(good.model_copy(update={"signatures": good.signatures * (SIGNATURES_MAX + 1)}))
    for raw in (bench.request() + bytes(limits.BODY_MAX), many):
        with pytest.raises(KcmError) as caught:
            await bench.endpoint.handle(HERE, raw)
        assert caught.value.code is Code.FORBIDDEN
    assert bench.verifier.verified == 0


@pytest.mark.parametrize(
    ("changes", "subject", "code"),
    [
        ({}, "another subject", Code.WRONG_REGION),
        ({"region": "us"}, HERE, Code.WRONG_REGION),
        ({"deadline_ms": 1_000_000_000}, HERE, Code.DEADLINE_EXCEEDED),
        ({"deadline_ms": 1_000_000_001 + limits.DEADLINE_MAX_MS}, HERE, Code.MALFORMED),
    ],
)
async def test_another_place_or_time_is_no_request_of_that_operator(
    bench: Bench, changes: dict[str, Any], subject: str, code: Code
) -> None:
    assert (await bench.ask(bench.request(**changes), subject)).code is code
    assert bench.calls == []
    assert bench.recorded() == [("trust.refused", None, Code.FORBIDDEN, 1)]


async def test_a_verb_takes_its_role_and_an_unknown_one_is_malformed(bench: Bench) -> None:
    reply = await bench.ask(bench.request(signer="security"))
    assert (reply.code, reply.detail) == (
        Code.FORBIDDEN, "thing put takes the role admin; your roles: security",
    )  # fmt: skip
    assert (await bench.ask(bench.request("unknown"))).code is Code.MALFORMED
    assert bench.calls == []


async def test_an_instance_that_is_not_ready_says_so_after_the_role(bench: Bench) -> None:
    bench.rules.ready = False
    assert (await bench.ask(bench.request(signer="security"))).code is Code.FORBIDDEN
    assert (await bench.ask(bench.request())).code is Code.UNAVAILABLE
    assert bench.calls == []


async def test_a_copy_has_the_same_answer_until_its_deadline(bench: Bench) -> None:
    raw = bench.request()
    first = await bench.endpoint.handle(HERE, raw)
    bench.payload = b"would be another answer"
    assert await bench.endpoint.handle(HERE, raw) == first
    bench.clock.now += 5.0
    assert (await bench.ask(raw)).code is Code.DEADLINE_EXCEEDED
    assert bench.calls == [("put", "")]


async def test_copies_that_arrive_at_once_are_served_once(bench: Bench) -> None:
    bench.gate.clear()
    raw = bench.request()
    asking = [asyncio.create_task(bench.endpoint.handle(HERE, raw)) for _ in range(10)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    bench.gate.set()
    assert len(set(await asyncio.gather(*asking[1:]))) == 1
    assert bench.calls == [("put", "")]
    assert bench.recorded() == [("admin.tenant-put", "admin", Code.OK, 1)]


async def test_a_long_answer_is_made_again_and_not_recorded_again(bench: Bench) -> None:
    bench.payload = bytes(ANSWER_MAX)
    raw = bench.request()
    for _ in range(2):
        assert (await bench.ask(raw)).code is Code.OK
    assert len(bench.calls) == 2
    assert bench.recorded() == [("admin.tenant-put", "admin", Code.OK, 1)]


async def test_reads_and_refusals_are_counted_and_a_copy_is_not(bench: Bench) -> None:
    raw = bench.request("look")
    for each in (raw, raw, bench.request("look"), bench.request("look")):
        await bench.ask(each)
    bench.error = KcmError(Code.CONFLICT, "it exists")
    refused = bench.request()
    for _ in range(3):
        assert (await bench.ask(refused)).code is Code.CONFLICT
    bench.error = None
    assert (await bench.ask(refused)).code is Code.OK
    assert sorted(bench.recorded()) == [
        ("admin.tenant-find", "admin", Code.OK, 1),
        ("admin.tenant-find", "admin", Code.OK, 2),
        ("admin.tenant-put", "admin", Code.CONFLICT, 1),
        ("admin.tenant-put", "admin", Code.OK, 1),
    ]
    assert {f["detail"] for _, f in bench.events if f.get("code")} == {"it exists"}


async def test_a_fault_is_raised_and_the_request_may_come_again(bench: Bench) -> None:
    bench.error = RuntimeError("a fault")
    raw = bench.request()
    with pytest.raises(RuntimeError):
        await bench.endpoint.handle(HERE, raw)
    bench.error = None
    assert (await bench.ask(raw)).code is Code.OK


async def test_a_retired_instance_answers_nothing(bench: Bench) -> None:
    joined = bench.me.joined.model_copy(update={"region": "us"})
    endpoint = bench.serving(replace(bench.me, joined=joined))
    with pytest.raises(KcmError) as caught:
        await endpoint.handle(HERE, bench.request())
    assert caught.value.code is Code.UNAVAILABLE
    assert bench.verifier.verified == 0


def test_a_verb_is_registered_once(bench: Bench) -> None:
    assert set(bench.endpoint.served) == {("thing", "put"), ("thing", "look")}
    with pytest.raises(ValueError, match="thing put"):
        bench.endpoint.serve("thing", {"put": bench.put})
