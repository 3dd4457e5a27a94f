"""Operators' questions to an Auditor: on record once each, and no way to fill the record."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from kcm_auditor.admin_api import AdminApi
from kcm_auditor.tail_buffer import TailBuffer
from kcm_runtime.clock import SystemRandomness
from kcm_runtime.host import Host
from kcm_schemas import limits, subjects
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.auditor import TailQuery
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind

from tests.fakes.bus import Clock
from tests.unit.core_rig import VERIFIER, instance_context, signed

ids = itertools.count(1)


class Bench:
    """An Auditor's answers, over a journal without entries."""

    def __init__(self) -> None:
        self.clock = Clock(1_000_000.0)
        self.events: list[tuple[str, dict[str, Any]]] = []
        recorder: Any = SimpleNamespace(
            trust=SimpleNamespace(refresh=lambda: None, verifier=VERIFIER), recent=TailBuffer()
        )
        signed_heads: Any = None
        host = Host(instance_context("aud-eu"), self.clock, SystemRandomness(), self._emit)
        self.answers = AdminApi(host, recorder, ("eu",), signed_heads)

    def _emit(self, kind: str, **fields: Any) -> None:
        self.events.append((kind, fields))

    def request(
        self, *, region: str = "eu", verb: str = "tail", payload: bytes | None = None
    ) -> bytes:
        body = AdminRequest(
            region=region, noun="auditor", verb=verb, instance=None, incarnation=None,
            request_id=next(ids).to_bytes(16, "big"),
            deadline_ms=self.clock.unix_ms() + 5000,
            payload=encode(TailQuery(limit=1, before=0)) if payload is None else payload,
        )  # fmt: skip
        return signed(Kind.ADMIN, body)

    async def ask(self, raw: bytes, verb: str = "tail") -> Code:
        answer = await self.answers.handle(subjects.auditor("eu", verb), raw)
        reply, _ = VERIFIER.admin_reply(answer, Role.AUDITOR)
        return reply.code

    def told(self) -> list[tuple[str, str | None, Code, int]]:
        self.answers.close()
        return [
            (str(kind), f.get("actor"), f.get("code", Code.OK), f["count"])
            for kind, f in self.events
        ]


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_garbage_does_not_fill_the_record(bench: Bench) -> None:
    for n in range(1000):
        with pytest.raises(KcmError):
            await bench.ask(b"garbage %d" % n)
    refused = ("trust.refused", None, Code.FORBIDDEN)
    assert bench.told() == [(*refused, 1), (*refused, 999)]


async def test_an_old_question_and_one_for_elsewhere_are_asked_by_nobody(bench: Bench) -> None:
    old = bench.request()
    bench.clock.now += 6.0
    far = bench.request()
    bench.clock.now -= limits.DEADLINE_MAX_MS / 1000 + 6.0
    assert await bench.ask(far) is Code.MALFORMED
    bench.clock.now += limits.DEADLINE_MAX_MS / 1000 + 6.0
    for _ in range(100):
        assert await bench.ask(old) is Code.DEADLINE_EXCEEDED
        assert await bench.ask(bench.request(region="us")) is Code.WRONG_REGION
        assert await bench.ask(bench.request(), "status") is Code.FORBIDDEN
    told = bench.told()
    assert {(kind, actor) for kind, actor, _, _ in told} == {("trust.refused", None)}
    assert sum(count for _, _, _, count in told) == 301
    assert len(told) <= 8


async def test_a_question_is_recorded_once_and_further_ones_are_counted(bench: Bench) -> None:
    raw = bench.request()
    for _ in range(1000):
        assert await bench.ask(raw) is Code.OK
    assert bench.told() == [("audit.read", "admin", Code.OK, 1)]
    bench.events.clear()
    for _ in range(10):
        assert await bench.ask(bench.request()) is Code.OK
    assert bench.told() == [("audit.read", "admin", Code.OK, n) for n in (1, 9)]


async def test_a_refusal_is_recorded_with_what_was_asked(bench: Bench) -> None:
    raw = bench.request(payload=b"")
    for _ in range(10):
        assert await bench.ask(raw) is Code.MALFORMED
    assert bench.told() == [("audit.read", "admin", Code.MALFORMED, 1)]
    assert bench.events[0][1]["detail"] == "tail"
