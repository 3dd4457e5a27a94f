"""The answers of a Core to the pulls of other regions."""

import asyncio

import pytest
from kcm_killswitch.coordinator.pull_answers import PAGE_BYTES
from kcm_schemas import limits, subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import KcmError
from kcm_schemas.control import PullReply, PullRequest
from kcm_schemas.signed import Kind

from tests.fakes.virtual import let_pass, settled
from tests.unit.switch.statements import VERIFIER, at, held, hold, signed

PULL = PullRequest(
    region="eu",
    nonce=b"n" * 16,
    after=bytes(16),
    parts=bytes(limits.PARTS_SIZE),
    pages=bytes(limits.PAGES_SIZE),
    hold_id=bytes(16),
)


async def test_a_pull_is_answered_behind_an_own_record_that_began_after_it_arrived(system):
    us = system.core("core-us-1")
    await us.start(watch=False)
    member = system.wire.join("core-eu-1")
    us.follower.paused = True
    one = hold(origin="us")
    us.stream.store(at(one, "us"), held(one))
    before = us.stream.sequence
    asking = asyncio.create_task(
        member.request(subjects.pull("us", "eu"), signed(Kind.PULL, PULL, "core-eu-1"), 4.0)
    )
    await let_pass(1)
    assert not asking.done()
    us.follower.resume()
    reply = VERIFIER.pull_reply(await asking)
    assert reply.position > before
    assert reply.holds == [held(one)]


@pytest.mark.parametrize("who", ["gw-eu-1", "security"])
async def test_a_pull_that_nobody_may_sign_is_not_answered(system, who):
    us = system.core("core-us-1")
    await us.start(watch=False)
    member = system.wire.join(who)
    with pytest.raises(KcmError):
        await member.request(subjects.pull("us", "eu"), signed(Kind.PULL, PULL, who), 1.0)


async def test_an_answer_goes_to_an_inbox_only(system):
    """Elsewhere it would be written with this Core's permissions."""
    us = system.core("core-us-1")
    await us.start(watch=False)
    member = system.wire.join("core-eu-1")
    target = subjects.broadcast_hold("us", "tenant", bytes(16))
    system.wire.sent.clear()
    await member.publish(subjects.pull("us", "eu"), signed(Kind.PULL, PULL, "core-eu-1"), target)
    await settled()
    assert [m.subject for m in system.wire.sent if m.subject == target] == []


def test_the_largest_reply_fits_into_a_message():
    from kcm_killswitch.model.incarnations import INCARNATIONS_MAX
    from kcm_schemas.control import Incarnation
    from kcm_schemas.roster import Role

    incarnations = [
        Incarnation(
            instance="i" * 63,
            incarnation=bytes(16),
            role=Role.GATEWAY,
            first=1 << 62,
            latest=1 << 62,
            lease_ms=1 << 31,
            silent_ms=1 << 31,
            quiet_ms=1 << 31,
            roster=1,
        )
    ] * INCARNATIONS_MAX
    reply = PullReply(
        region="eu", nonce=bytes(16), roster=1 << 31, same=False, more=True, position=1,
        durable_at=1, held_ms=1 << 31, watched_ms=1 << 31, reached=bytes(32), settled=True,
        lifted=False,
        holds=[bytes(limits.SIGNED_HOLD_MAX)]
        * (PAGE_BYTES // limits.SIGNED_HOLD_MAX),
        incarnations=incarnations,
    )  # fmt: skip
    assert len(encode(reply)) < limits.BODY_MAX
