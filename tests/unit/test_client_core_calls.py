"""An operator's requests to two Cores: one is down, hangs, restarts, is busy, or is forged."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kcm._internal.admin import Admin
from kcm._internal.core_calls import OPEN_S
from kcm._internal.kills import Kills
from kcm._internal.retry import AGAIN_S
from kcm.errors import Conflict, ServiceError, Unavailable, Unreached
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.admin.tenants import TenantPage
from kcm_schemas.codec import Message, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.session import SealedReply

from tests.fakes.client import FakeSystem
from tests.fakes.operator_core import FakeCore
from tests.fakes.refusals import failure
from tests.unit.operator_rig import Cores

EMPTY = TenantPage(tenants=[], total=0, more=False)
QUICKLY_S = 3 * AGAIN_S + 2 * OPEN_S
"""Much less than the time of a request."""


class Pair:
    """The two Cores of a region, and which of them the operator asked first."""

    def __init__(self, system: FakeSystem) -> None:
        self.system = system
        self.one = system.cores["eu"]
        self.two = self.one.mates["core-eu-2"]
        self.admin = Admin(system.context(), opener=system.open, around=system.clock.around())
        system.everywhere("tenant", "list", lambda request, operator: EMPTY)

    async def chosen(self) -> tuple[FakeCore, FakeCore]:
        """The Core that is asked next, because the other one was down a moment ago; and that."""
        self.two.down = True
        assert await self.admin.tenants("eu") == ([], 0)
        while not self.two.wire:  # noqa: ASYNC110 - the fake has no event
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.two.down = False
        self.one.requests.clear()
        return self.one, self.two

    @property
    def all(self) -> list[AdminRequest]:
        return self.one.requests + self.two.requests


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    made = Pair(FakeSystem(tmp_path, second=True))
    yield made
    await made.admin.close()


@pytest.mark.parametrize("how", ["down", "hangs"])
@pytest.mark.parametrize("name", ["one", "two"])
async def test_with_one_of_two_cores_everything_works_and_quickly(
    pair: Pair, how: str, name: str
) -> None:
    broken = getattr(pair, name)
    setattr(broken, how, True)
    Cores(pair.system)
    began = time.monotonic()
    assert await pair.admin.tenants("eu") == ([], 0)
    if broken is not pair.one:  # the fake's queue group is its first Core
        kills = Kills(pair.admin, ["eu"])
        hold = kills.make("tenant", "acme", "a drill")
        until = pair.system.clock.now + 20
        await kills.place(hold, until)
        assert (await kills.status(hold.id, until)).hold_id == hold.id
    assert time.monotonic() - began < QUICKLY_S
    assert not broken.requests


async def test_a_core_that_hangs_after_its_session_began_is_left_for_the_other(pair: Pair) -> None:
    first, other = await pair.chosen()
    first.hangs = True
    began = time.monotonic()
    for _ in range(3):
        assert await pair.admin.tenants("eu") == ([], 0)
    assert time.monotonic() - began < QUICKLY_S
    assert {one.instance for one in other.requests} == {other.identity.name}


async def test_a_core_that_works_long_gets_the_same_statement_again_and_no_other_core_gets_it(
    pair: Pair,
) -> None:
    first, other = await pair.chosen()
    first.dying = 2
    assert await pair.admin.tenants("eu") == ([], 0)
    assert len(first.requests) == 3
    assert first.requests == first.requests[:1] * 3
    assert not other.requests


async def test_an_order_for_a_core_that_restarted_is_signed_for_its_new_incarnation(
    pair: Pair,
) -> None:
    first, other = await pair.chosen()
    other.down = True
    assert await pair.admin.tenants("eu") == ([], 0)
    first.restart()
    assert await pair.admin.tenants("eu") == ([], 0)
    before, now = first.requests
    assert before.incarnation != now.incarnation == first.incarnation


async def test_a_core_that_restarts_amid_a_request_is_noticed(pair: Pair) -> None:
    first, other = await pair.chosen()

    async def restart(subject: str, _body: bytes) -> bytes | None:
        if ".admin." in subject:
            first.bend = None
            first.restart()
            await asyncio.Event().wait()
        return None

    first.bend = restart
    began = time.monotonic()
    assert await pair.admin.tenants("eu") == ([], 0)
    assert time.monotonic() - began < QUICKLY_S
    assert len(pair.all) == 1
    assert len(other.requests) == 1


async def test_a_conflict_with_the_same_order_at_a_silent_core_is_not_final(pair: Pair) -> None:
    first, other = await pair.chosen()
    answers: Iterator[Code] = iter([Code.CONFLICT, Code.CONFLICT, Code.OK])

    def listing(request: AdminRequest, operator: str) -> Message:
        code = next(answers)
        if code is not Code.OK:
            raise KcmError(code, "it is changed at the same time")
        return EMPTY

    first.hangs = True
    other.handlers["tenant", "list"] = listing
    assert await pair.admin.tenants("eu") == ([], 0)
    answers = itertools.repeat(Code.CONFLICT)
    first.hangs, first.down = False, True
    pair.system.clock.now += 60
    with pytest.raises(Conflict):
        await pair.admin.tenants("eu")


async def test_a_core_that_is_named_and_hangs_ends_the_request_in_time(pair: Pair) -> None:
    pair.two.hangs = True
    began = time.monotonic()
    with pytest.raises(ServiceError) as caught:
        await pair.admin.ask(
            "eu", "tenant", "list", EMPTY, TenantPage, at="core-eu-2", deadline_s=0.1
        )
    assert caught.value.retryable
    assert time.monotonic() - began < QUICKLY_S
    assert not pair.one.requests


@pytest.mark.parametrize("code", [Code.BUSY, Code.UNAVAILABLE])
async def test_after_a_core_that_cannot_serve_the_other_one_is_asked(
    pair: Pair, code: Code
) -> None:
    def refuse(request: AdminRequest, operator: str) -> Message:
        raise KcmError(code)

    first, other = await pair.chosen()
    first.handlers["tenant", "list"] = refuse
    asked = len(first.requests)
    for _ in range(3):
        assert await pair.admin.tenants("eu") == ([], 0)
    assert other.requests
    assert len(first.requests) <= asked + 1


async def test_with_a_name_exactly_that_core_is_asked(pair: Pair) -> None:
    for core in (pair.one, pair.two):
        name = core.identity.name
        assert await pair.admin.ask("eu", "tenant", "list", EMPTY, TenantPage, at=name) == EMPTY
        assert [one.instance for one in core.requests] == [name]
    pair.two.down = True
    with pytest.raises(Unreached, match="no instance serves this"):
        await pair.admin.ask("eu", "tenant", "list", EMPTY, TenantPage, at="core-eu-2")
    assert len(pair.one.requests) == 1


async def test_no_core_at_all_is_unreached(pair: Pair) -> None:
    pair.one.down = pair.two.down = True
    with pytest.raises(Unreached, match="no instance serves this"):
        await pair.admin.tenants("eu")


@pytest.mark.parametrize("code", list(Code))
@pytest.mark.parametrize("verb", ["key", "open-operator", "list"])
async def test_a_refusal_without_a_seal_only_makes_the_client_ask_elsewhere(
    pair: Pair, code: Code, verb: str
) -> None:
    """An attacker on the broker refuses in the place of one Core, and then of both."""

    async def lie(subject: str, body: bytes) -> bytes | None:
        return failure(code, "a lie") if verb in subject.split(".") else None

    pair.one.bend = lie
    assert await pair.admin.tenants("eu") == ([], 0)
    assert not pair.one.requests
    pair.two.bend = lie
    again = Admin(pair.system.context(), opener=pair.system.open, around=pair.admin.around)
    with pytest.raises(ServiceError) as caught:
        await again.tenants("eu")
    await again.close()
    assert caught.value.retryable
    assert "a lie" not in caught.value.detail


async def test_an_answer_that_is_forged_or_replayed_is_not_believed(pair: Pair) -> None:
    """Also not one that the Core sealed itself, for an earlier request."""
    answers: list[bytes] = []

    async def record(subject: str, body: bytes) -> bytes | None:
        if ".admin." not in subject:
            return None
        answers.append(await pair.one.sealed.handle(subject, body))
        return answers[-1]

    async def replay(subject: str, _body: bytes) -> bytes | None:
        return answers[0] if ".admin." in subject else None

    async def forge(subject: str, _body: bytes) -> bytes | None:
        return encode(SealedReply(v=1, sealed=bytes(200))) if ".admin." in subject else None

    pair.one.bend = record
    for _ in range(2):
        await pair.admin.ask("eu", "tenant", "list", EMPTY, TenantPage, at="core-eu")
    for bend in (replay, forge):
        pair.one.bend = bend
        with pytest.raises(Unavailable, match="does not authenticate"):
            await pair.admin.ask("eu", "tenant", "list", EMPTY, TenantPage, at="core-eu")
        assert await pair.admin.tenants("eu") == ([], 0)  # the other one answers
