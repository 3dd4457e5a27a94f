"""Two regions over a backbone, and a region of two nodes: all with operators and TLS first."""

import asyncio

import pytest
from kcm_broker import accounts, tokens
from kcm_broker import rights as table
from kcm_broker import server_configuration as configuration
from kcm_broker.roles import Account
from kcm_broker.tokens import TokenKind
from kcm_devsystem import ports
from kcm_runtime.nats import credentials
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from nats.errors import Error

from tests.integration import broker_rig as rig

REGIONS = ("eu", "us")
LEAF = rig.scope("leaf", "backbone")
PUSHER = rig.scope("pusher", "system")


@pytest.fixture
def ca(tmp_path):
    return rig.Ca(tmp_path / "ca")


@pytest.fixture
async def join(ca, tmp_path):
    async with rig.joining(ca, tmp_path) as joined:
        yield joined


@pytest.fixture
def world(tmp_path, ca):
    """A backbone, and two regions that are linked to it."""
    backbone = rig.backbone_realm(REGIONS)
    middle = rig.start_backbone(tmp_path / "backbone", backbone, ca)
    running, realms, leaves = [middle], {}, {}
    try:
        for region in REGIONS:
            realms[region] = rig.region_realm(region)
            leaves[region] = backbone.user(LEAF, region)
            path = tmp_path / f"{region}-link.creds"
            credentials.write(path, leaves[region])
            url = f"tls://{rig.HOST}:{middle.leaf_port}"
            control = realms[region].accounts[Account.CONTROL].public
            link = configuration.Link((url,), control, path, ca.tls(f"{region}-1"))
            running.append(rig.start_region(tmp_path / region, realms[region], ca, link))
        yield backbone, middle, realms, dict(zip(REGIONS, running[1:], strict=True)), leaves
    finally:
        for one in reversed(running):
            one.stop()


async def test_holds_receipts_and_pulls_cross_regions_in_the_own_name_only(world, join):
    _, middle, realms, servers, leaves = world
    core = await join(servers["eu"], realms["eu"], rig.scope("core", "control", "core-1"))
    other = await join(servers["us"], realms["us"], rig.scope("core", "control", "core-1"))
    gateway = await join(servers["us"], realms["us"], rig.scope("gateway", "control", "gateway-1"))
    seen = []

    async def receive(message):
        seen.append(message.subject)

    async def answer(message):
        assert message.reply.startswith("_R_.")
        await message.respond(b"holds of us")

    await gateway.client.subscribe(subjects.broadcast_holds(), cb=receive)
    await other.client.subscribe(subjects.pulls("us"), queue="core-us", cb=answer)
    await gateway.client.flush()
    await other.client.flush()

    async def pulled():
        try:
            got = await core.client.request(subjects.pull("us", "eu"), b"", timeout=1)
        except Error:
            return False
        return got.data == b"holds of us"

    await rig.until_answer(pulled)  # the link is there
    hold = subjects.broadcast_hold("eu", "tenant", bytes(16))

    async def heard():
        await core.client.publish(hold, b"hold")
        return hold in seen

    await rig.until_answer(heard)
    await core.client.publish(subjects.broadcast_hold("us", "tenant", bytes(16)))
    await core.client.publish(subjects.pull("us", "fr"))

    async def refused():
        return len(core.errors) == 2

    await rig.until_answer(refused)
    assert set(seen) == {hold}
    assert other.errors == gateway.errors == []
    with pytest.raises(Error):  # the credential of the link is none of a client
        await join(middle, None, LEAF, leaves["eu"])


async def test_both_regions_pull_and_hear_while_every_right_is_used(world, join):
    """Every entry of the table is subscribed on both sides, as the product does."""
    _, _, realms, servers, _ = world
    heard = {region: set() for region in REGIONS}
    cores = {}
    for region in REGIONS:
        for role, name in (("core", "core-1"), ("gateway", "gateway-1")):
            scope = rig.scope(role, "control", name)
            one = await join(servers[region], realms[region], scope)
            for entry in table.rights(scope.role, scope.account, region, name).subscribe:
                subject, _, queue = entry.partition(" ")
                if ".pull." in subject:
                    await one.client.subscribe(subject, queue, cb=answering(region))
                elif not subject.startswith("_INBOX"):
                    await one.client.subscribe(subject, cb=hearing(heard[region]))
            cores.setdefault(region, one)
    for region, other in (("eu", "us"), ("us", "eu")):
        core = cores[region].client

        async def pulled(core=core, region=region, other=other):
            try:
                got = await core.request(subjects.pull(other, region), b"", timeout=1)
            except Error:
                return False
            return got.data == other.encode()

        async def told(core=core, region=region, other=other):
            sent = {
                subjects.broadcast_hold(region, "tenant", bytes(16)),
                subjects.receipt(region, bytes(16)),
            }
            for subject in sent:
                await core.publish(subject)
            return sent <= heard[other]

        await rig.until_answer(pulled)
        await rig.until_answer(told)
        for _ in range(20):
            assert await pulled()
    assert not [error for one in cores.values() for error in one.errors]


def answering(region):
    async def answer(message):
        await message.respond(region.encode())

    return answer


def hearing(found):
    async def hear(message):
        found.add(message.subject)

    return hear


async def test_a_revoked_link_is_cut(world, join):
    backbone, middle, realms, servers, leaves = world
    core = await join(servers["eu"], realms["eu"], rig.scope("core", "control", "core-1"))
    gateway = await join(servers["us"], realms["us"], rig.scope("gateway", "control", "gateway-1"))
    heard = asyncio.Event()

    async def receive(_message):
        heard.set()

    await gateway.client.subscribe(subjects.broadcast_holds(), cb=receive)

    async def passes(wait=0.2):
        heard.clear()
        await core.client.publish(subjects.broadcast_hold("eu", "tenant", bytes(16)))
        try:
            await asyncio.wait_for(heard.wait(), wait)
        except TimeoutError:
            return False
        return True

    await rig.until_answer(passes)
    system = await join(middle, backbone, PUSHER)
    pusher = backbone.pusher(system.client, 1)
    (before,) = await pusher.present(backbone.accounts["eu"].public)
    signers = {key.public for key in backbone.scopes["eu"].values()}
    link = tokens.verify(leaves["eu"].token, TokenKind.USER, signers)
    public = {region: backbone.accounts[region].public for region in REGIONS}
    token = backbone.issue(
        Account.BACKBONE,
        "eu",
        [accounts.revoke(link, rig.now_s())],
        accounts.peering_of("eu", public),
        after=before,
    )
    await pusher.push(token)

    async def cut():
        return not await passes()

    await rig.until_answer(cut)


async def test_a_push_reaches_every_node_of_a_cluster(tmp_path, ca, join):
    realm, servers = rig.region_realm(), []
    numbers = ports.draw(2)
    routes = tuple(f"tls://{rig.HOST}:{number}" for number in numbers)
    try:
        for place, number in enumerate(numbers, 1):
            cluster = configuration.Cluster(number, routes)
            servers.append(
                rig.start_region(tmp_path / f"eu{place}", realm, ca, number=place, cluster=cluster)
            )
        region = realm.accounts[Account.REGION].public
        system = await join(servers[0], realm, PUSHER)
        pusher = realm.pusher(system.client, 2)

        async def both():
            return len(await pusher.present(region)) == 2

        await rig.until_answer(both)
        app = rig.scope("application", "region")
        made = realm.user(app)
        there = await join(servers[1], realm, app, made)
        claims = tokens.verify(
            made.token, TokenKind.USER, {realm.scopes[Account.REGION][app].public}
        )
        (before, _) = await pusher.present(region)
        token = realm.issue(Account.REGION, after=before)
        assert (await pusher.push(token)).nodes == ("eu-1", "eu-2")
        revoked = realm.issue(
            Account.REGION,
            revocations=[accounts.revoke(claims, rig.now_s())],
            after=tokens.verify(token, TokenKind.ACCOUNT, realm.operators),
        )
        await pusher.push(revoked)

        async def closed():
            return bool(there.closed)

        await rig.until_answer(closed)
        servers.pop().stop()
        with pytest.raises(KcmError) as caught:
            await pusher.push(revoked)
        assert caught.value.code is Code.UNAVAILABLE
        assert "1 of 2 nodes" in str(caught.value)
    finally:
        for one in servers:
            one.stop()
