"""A real backbone and three real regions: what crosses between them, and what cannot.

"Never arrives" is never a wait. Something that must arrive is sent after it on the same path;
the link keeps order, so once that is here, the other would have been.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from kcm_broker.roles import Account
from kcm_deployment.broker_files import BACKBONE
from kcm_devsystem import topology
from kcm_devsystem.broker_users import Users, visitor_file
from kcm_devsystem.processes import End, Process, is_running, stop
from kcm_devsystem.topology import Topology
from kcm_runtime.nats import credentials
from kcm_runtime.nats.credentials import Credentials
from nats.errors import NoRespondersError

from tests.integration.nats_clients import (
    SECONDS,
    A,
    B,
    C,
    Heard,
    RogueLeaf,
    ask,
    connected,
    greeted,
    written,
)

HOLD_OF_A = f"kcm.v1.ctl.hold.{A}.tenant.x"
RECEIPT_OF_A = f"kcm.v1.ctl.receipt.{A}.x"
AFTER = f"kcm.v1.ctl.receipt.{A}.after"
REFUSED = b"-ERR 'Authorization Violation"
AFTER_C = f"kcm.v1.ctl.receipt.{C}.after"
NEVER = b"never"
HOLD_OF_B = f"kcm.v1.ctl.hold.{B}.tenant.x"


@dataclass
class Brokers:
    """The brokers of this module. A test that restarts one puts the new process here."""

    plan: Topology
    processes: dict[str, Process]


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    root = tmp_path_factory.mktemp("system")
    plan, entries = topology.start(root, [A, B, C], die_with_parent=True, users=Users(visitor=True))
    running = Brokers(plan, {entry.process.name: entry.process for entry in entries})
    yield running
    ends = stop(running.processes.values())
    assert set(ends.values()) == {End.DRAINED}
    assert not any(is_running(process) for process in running.processes.values())


@pytest.fixture(scope="module")
def system(brokers: Brokers) -> Topology:
    return brokers.plan


async def test_a_broadcast_reaches_every_other_region(system):
    async with (
        connected(system, A, Account.CONTROL) as sender,
        connected(system, B, Account.CONTROL) as b,
        connected(system, C, Account.CONTROL) as c,
    ):
        for receiver in (b, c):
            heard = await Heard().listen(receiver, "kcm.v1.ctl.>")
            await heard.until_linked(sender)
            await sender.publish(RECEIPT_OF_A, b"")
            await sender.publish(HOLD_OF_A, b"")
            await heard.until(RECEIPT_OF_A)
            await heard.until(HOLD_OF_A)


async def test_what_is_published_in_a_regions_own_account_stays_there(system):
    data = f"kcm.v1.{A}.core.wrap.t.s"
    async with (
        connected(system, A, Account.REGION) as region,
        connected(system, A, Account.CONTROL) as control,
        connected(system, B, Account.REGION) as b_region,
        connected(system, B, Account.CONTROL) as b_control,
    ):
        local = await Heard().listen(region, ">")
        other_region = await Heard().listen(b_region, ">")
        other_control = await Heard().listen(b_control, "kcm.v1.ctl.>")
        await other_control.listen(b_control, ">")
        await other_control.until_linked(control)

        for subject in (data, HOLD_OF_A):
            await region.publish(subject, b"secret")
        await written(region)
        await local.until(HOLD_OF_A)
        await control.publish(AFTER, b"")
        await other_control.until(AFTER)
        await b_region.publish("marker", b"")
        await other_region.until("marker")

        assert other_region.subjects == ["marker"]
        assert data not in other_control.subjects
        assert HOLD_OF_A not in other_control.subjects


async def test_data_published_by_mistake_on_the_control_account_stays_too(system):
    data = f"kcm.v1.{A}.core.wrap.t.s"
    async with (
        connected(system, A, Account.CONTROL) as control,
        connected(system, B, Account.CONTROL) as other,
    ):
        heard = await Heard().listen(other, data)
        await heard.listen(other, "kcm.v1.ctl.>")
        await heard.until_linked(control)
        await control.publish(data, b"secret")
        await control.publish(AFTER, b"")
        await heard.until(AFTER)
        assert data not in heard.subjects


async def test_each_region_stores_for_itself(system):
    for region in (A, B, C):
        async with connected(system, region, Account.REGION) as client:
            account = await client.jetstream(domain=region).account_info()
            assert account.api.level >= 2
            assert account.domain == region


@pytest.mark.parametrize("request_", ["INFO", "STREAM.NAMES", "STREAM.PURGE.x", "STREAM.DELETE.x"])
async def test_no_region_reaches_anothers_jetstream(system, request_):
    async with connected(system, A, Account.CONTROL) as client:
        with pytest.raises(NoRespondersError):
            await client.request(f"$JS.{B}.API.{request_}", b"", timeout=SECONDS)


async def test_a_region_cannot_speak_for_another(system):
    async with (
        connected(system, A, Account.CONTROL) as sender,
        connected(system, C, Account.CONTROL) as receiver,
    ):
        heard = await Heard().listen(receiver, "kcm.v1.ctl.>")
        await heard.until_linked(sender)
        await sender.publish(HOLD_OF_B, b"forged")
        await sender.publish(f"kcm.v1.ctl.receipt.{B}.{'0' * 32}", b"forged")
        await sender.publish(HOLD_OF_A, b"own")
        await heard.until(HOLD_OF_A)
        assert not [s for s in heard.subjects if f".{B}." in s]


PULL = f"kcm.v1.ctl.pull.{B}.{C}"

SPIED = (">", "kcm.v1.ctl.>", "kcm.v1.ctl.pull.*.*", PULL, "_INBOX.>", "_R_.>")


async def test_a_pull_is_answered_by_the_region_that_was_asked(system):
    """Whatever a third region listens to, it takes no pull away and sees no question or reply."""
    async with (
        connected(system, A, Account.CONTROL) as spy,
        connected(system, B, Account.CONTROL) as asked,
        connected(system, C, Account.CONTROL) as asker,
    ):
        spied = Heard()
        for subject in SPIED:
            await spied.listen(spy, subject)
            await spy.subscribe(subject, queue="cores", cb=spied.hear)

        async def answer(message) -> None:
            await message.respond(b"from-b")

        await asked.subscribe(f"kcm.v1.ctl.pull.{B}.*", queue="cores", cb=answer)
        await written(asked)
        await spied.until_linked(asker, C)
        await spied.until_linked(asked, B)
        assert (await ask(asker, PULL)).data == b"from-b"
        for client, origin in ((asker, C), (asked, B)):
            await client.publish(f"kcm.v1.ctl.receipt.{origin}.after", b"")
            await spied.until(f"kcm.v1.ctl.receipt.{origin}.after")
        assert not [s for s in spied.subjects if "pull" in s or s.startswith(("_INBOX", "_R_"))]


async def test_nobody_asks_in_another_regions_name(system):
    """The subject names who asks, so a region that asks too much is known."""
    async with (
        connected(system, B, Account.CONTROL) as asked,
        connected(system, A, Account.CONTROL) as liar,
        connected(system, C, Account.CONTROL) as asker,
    ):
        heard = await Heard().listen(asked, f"kcm.v1.ctl.pull.{B}.*")
        await heard.listen(asked, "kcm.v1.ctl.probe.>")
        await heard.until_linked(asker, C)
        async with asyncio.timeout(SECONDS):
            while PULL not in heard.subjects:
                await liar.publish(f"kcm.v1.ctl.pull.{B}.{A}", b"own")
                await asker.publish(PULL, b"own")
                await asyncio.sleep(0.02)
        heard.subjects.clear()
        await liar.publish(PULL, b"forged")
        async with asyncio.timeout(SECONDS):
            while f"kcm.v1.ctl.pull.{B}.{A}" not in heard.subjects:
                await liar.publish(f"kcm.v1.ctl.pull.{B}.{A}", b"own")
                await asyncio.sleep(0.02)
        assert PULL not in heard.subjects


async def test_a_regions_credentials_admit_no_client_to_the_backbone(system):
    backbone, brokers = system.backbone, system.brokers
    ca = brokers.certificates(BACKBONE).ca
    for region in (A, B, C):
        link = credentials.read(brokers.link_file(region))
        answer = await greeted(backbone.host, backbone.port, ca, link)
        assert answer.startswith(REFUSED)


async def test_credentials_admit_their_own_user_to_their_own_region_only(system):
    spec, brokers = system.region(A), system.brokers
    ca = brokers.certificates(A).ca
    one, other = (
        credentials.read(visitor_file(system.root, A, account))
        for account in (Account.REGION, Account.CONTROL)
    )
    assert await greeted(spec.host, spec.port, ca, one) == b"PONG\r\n"
    abroad = credentials.read(visitor_file(system.root, B, Account.REGION))
    link = credentials.read(brokers.link_file(A))
    for made in (Credentials(one.token, other.key), None, abroad, link):
        answer = await greeted(spec.host, spec.port, ca, made)
        assert answer.startswith(REFUSED)


async def told(rogue: RogueLeaf, heard: Heard, subject: str) -> None:
    """Send as a rewritten broker until it is heard."""
    async with asyncio.timeout(SECONDS):
        while subject not in heard.subjects:
            rogue.publish(subject, b"own")
            await asyncio.sleep(0.02)


async def test_the_backbone_itself_refuses_what_a_rewritten_broker_sends(system):
    """It ends the link."""
    async with connected(system, C, Account.CONTROL) as receiver:
        heard = await Heard().listen(receiver, "kcm.v1.ctl.>")
        for own in (HOLD_OF_A, AFTER):
            rogue = await RogueLeaf.join(system, A)
            try:
                await told(rogue, heard, own)
                rogue.publish(HOLD_OF_B, b"forged")
                await rogue.heard_until(NEVER)
            finally:
                await rogue.close()
        assert HOLD_OF_B not in heard.subjects


@pytest.mark.parametrize("spied", [*SPIED, f"kcm.v1.ctl.pull.{A}.*"])
async def test_the_backbone_itself_keeps_others_pulls_from_a_rewritten_broker(system, spied):
    marker = f"LMSG {AFTER_C}".encode()
    rogue = await RogueLeaf.join(system, A)
    try:
        rogue.subscribe(AFTER_C)
        rogue.subscribe(spied)
        async with connected(system, C, Account.CONTROL) as asker:
            hearing = asyncio.create_task(rogue.heard_until(marker))
            while not hearing.done():
                await asker.publish(PULL, b"question")
                await asker.publish(AFTER_C, b"")
                await asyncio.sleep(0.02)
            heard = await hearing
    finally:
        await rogue.close()
    assert b"question" not in heard
    # Patterns are cut down to what the link may carry; for the subject itself, the link is ended.
    assert marker in heard or spied == PULL


async def test_the_link_heals_after_the_backbone_was_away(system, brokers):
    """And what was published meanwhile is not delivered late: an old kill is no news."""
    name = system.backbone.name
    async with (
        connected(system, A, Account.CONTROL) as sender,
        connected(system, B, Account.CONTROL) as receiver,
    ):
        heard = await Heard().listen(receiver, "kcm.v1.ctl.>")
        await heard.until_linked(sender)
        away = brokers.processes[name]
        assert stop([away]) == {away: End.DRAINED}
        assert not is_running(away)
        await sender.publish(f"kcm.v1.ctl.receipt.{A}.meanwhile", b"")
        await written(sender)
        brokers.processes[name] = topology.start_broker(system, name, die_with_parent=True)
        await heard.until_linked(sender)
        assert f"kcm.v1.ctl.receipt.{A}.meanwhile" not in heard.subjects
