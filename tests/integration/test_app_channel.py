"""The way between an application and its Gateway on a real bus, with an attacker on it."""

import contextlib
import time

import pytest
from kcm import Admin, Client, Forbidden, KcmError
from kcm._internal import app_entries, statements
from kcm._internal.kills import Kills
from kcm.errors import ServiceError
from kcm_devsystem import applications
from kcm_runtime.files.identity_file import create_identity
from kcm_schemas import data_subjects
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code
from kcm_schemas.data import EncryptReply, Failure
from kcm_schemas.names import key_target
from kcm_schemas.session import SealedReply, SealedRequest, decode_sealed_reply

from tests.integration.living import EU, eventually
from tests.integration.test_core_channel import tapped

GATEWAYS = f"kcm.v1.{EU}.gateway"
SECRET = b"a payload that no broker may see"


def requests(heard):
    """The sealed requests of applications among what was heard."""
    return [(subject, data) for subject, data, _ in heard if subject.count(".") == 7]


async def refusal(app, subject, body):
    try:
        decode_sealed_reply(await app.request(subject, body, 6))
    except KcmError as error:
        return error.code
    return Code.OK


async def test_a_tap_finds_no_payload_and_a_copy_is_never_executed(living):
    tenant = await living.tenant(kind="softkey")
    async with tapped(living, ">") as heard, Client.connect(living.context) as client:
        record = await client.encrypt_one(tenant, "crm", SECRET)
        assert await client.decrypt_one(tenant, "crm", record) == SECRET
        await eventually(lambda: _both(heard))
        captured = requests(heard)
        async with living.app() as attacker:
            for subject, body in captured:
                codes = {await refusal(attacker, subject, body) for _ in range(50)}
                assert codes == {Code.REPLAYED}
                elsewhere = subject.replace(".crm", ".hr")
                assert await refusal(attacker, elsewhere, body) is not Code.OK
        assert not any(SECRET in data for _, data, _ in heard)


async def _both(heard):
    return {subject.split(".")[5] for subject, _ in requests(heard)} >= {"encrypt", "decrypt"}


async def test_a_thief_in_a_gateways_place_is_never_believed(living):
    """He answers every request to every Gateway at once, before the Gateway does."""
    tenant = await living.tenant(kind="softkey")
    lies = [
        encode(EncryptReply(v=1, lease_ms=5000, records=[b"forged"], codes=[])),
        encode(SealedReply(v=1, sealed=b"\0" * 80)),
        encode(Failure(v=1, error=Code.TENANT_KILLED, detail="forged")),
        encode(Failure(v=1, error=Code.OK, detail="")),
    ]
    said = []
    async with living.app() as thief, Client.connect(living.context) as client:
        assert await client.encrypt_one(tenant, "crm", b"x")

        async def lie(message):
            said.append(message.subject)
            await thief.publish(message.reply, lies[len(said) % len(lies)])

        await thief.subscribe(f"{GATEWAYS}.>", lie)
        await thief.client.flush()
        for _ in range(4):
            with contextlib.suppress(ServiceError):
                assert (await client.encrypt_one(tenant, "crm", b"x", deadline_s=1)) != b"forged"
    assert said
    async with Client.connect(living.context) as client:
        await eventually(lambda: _serves(client, tenant))


async def _app_of(living, admin, tmp_path, tenant):
    """A new application with a grant for a tenant's service, and the context file that names it."""
    name = f"narrow-{time.time_ns()}"
    identity = create_identity(name, str(tmp_path / "key"), living.context.system)
    context = tmp_path / "context.toml"
    before, _, after = living.context.path.read_text().partition("[app]")
    rest = after.partition("\n\n")[2]
    context.write_text(f'{before}[app]\nname = "{name}"\nkey = "{tmp_path / "key"}"\n\n{rest}')
    context.chmod(0o600)
    entry = applications.entry(living.context, [f"{tenant}/crm"]).model_copy(
        update={"app": name, "public_key": identity.public}
    )
    for region in living.context.regions:
        await admin.put(region, "app", statements.app(admin.identity, entry))
    return entry, context


async def _serves(client, tenant):
    try:
        return bool(await client.encrypt_one(tenant, "crm", b"x"))
    except KcmError:
        return False


@pytest.mark.timeout(120)
async def test_an_application_of_another_tenant_is_refused_and_a_revocation_reaches_it(
    living, tmp_path
):
    mine, other = await living.tenant(kind="softkey"), await living.tenant(kind="softkey")
    async with Admin.open(living.context) as admin:
        entry, context = await _app_of(living, admin, tmp_path, mine)
        name = entry.app
        async with Client.connect(context) as client:
            await eventually(lambda: _serves(client, mine))
            with pytest.raises(Forbidden, match="has no grant to encrypt"):
                await client.encrypt_one(other, "crm", b"x")
            gone = entry.model_copy(
                update={"revision": 2, "previous": app_entries.digest_of(entry), "revoked": True}
            )
            for region in living.context.regions:
                await admin.put(region, "app", statements.app(admin.identity, gone))

            async def refused():
                try:
                    await client.encrypt_one(mine, "crm", b"x")
                except Forbidden as error:
                    return "revoked" in error.detail
                return False

            await eventually(refused, within_s=10)
    async with living.app() as plain:
        subject = data_subjects.gateway_session(EU, f"gateway-{EU}-1", "key")
        assert await plain.request(subject, b"", 2)
        sealed = data_subjects.gateway_at(EU, f"gateway-{EU}-1", "encrypt", mine, "crm")
        unknown = SealedRequest(
            v=1, caller=name, session_id=bytes(16), counter=1, asks=[], sealed=b""
        )
        reply = decode(Failure, await plain.request(sealed, encode(unknown), 2))
        assert reply.error is Code.UNKNOWN_SESSION


async def _kill(admin, scope, target):
    """Place a hold, and watch it until it is complete; returns its last status."""
    kills = Kills(admin, [EU])
    hold = kills.make(scope, target, "a drill")
    until = admin.around.until(60)
    status = await kills.place(hold, until)
    async for seen in kills.watch(hold.id, until, hold):
        status = seen
    return hold, status


@pytest.mark.timeout(120)
async def test_a_hold_on_a_key_ends_it_everywhere_with_receipts_and_a_new_key_is_served(
    living, tmp_path
):
    tenant = await living.tenant(kind="softkey")
    async with Admin.open(living.context) as admin:
        entry, context = await _app_of(living, admin, tmp_path, tenant)
        async with Client.connect(context) as client, Client.connect(living.context) as other:
            await eventually(lambda: _serves(client, tenant))
            target = key_target(entry.app, entry.public_key)
            _, status = await _kill(admin, "app", target)
            assert status.complete
            gateways = {one.instance for one in status.incarnations if one.how == "receipt"}
            assert gateways >= {f"gateway-{EU}-1", f"core-{EU}-1"}
            with pytest.raises(Forbidden, match="key out of service"):
                await client.encrypt_one(tenant, "crm", b"x")
            assert await other.encrypt_one(tenant, "crm", b"x")
        (tmp_path / "key").rename(tmp_path / "stolen")
        identity = create_identity(entry.app, str(tmp_path / "key"), living.context.system)
        rotated = entry.model_copy(
            update={
                "revision": 2,
                "previous": app_entries.digest_of(entry),
                "public_key": identity.public,
            }
        )
        for region in living.context.regions:
            await admin.put(region, "app", statements.app(admin.identity, rotated))
        async with Client.connect(context) as client:
            await eventually(lambda: _serves(client, tenant))
        (tmp_path / "stolen").replace(tmp_path / "key")
        async with Client.connect(context) as thief:
            assert not await _serves(thief, tenant)


@pytest.mark.timeout(120)
async def test_a_gateway_whose_key_is_held_serves_nothing_until_the_hold_is_lifted(living):
    tenant, name = await living.tenant(kind="softkey"), f"gateway-{EU}-1"
    async with Admin.open(living.context) as admin, Client.connect(living.context) as client:
        await eventually(lambda: _serves(client, tenant))
        entry = admin.verifier.instance(name)
        hold, status = await _kill(admin, "instance", key_target(name, entry.public_key))
        try:
            assert status.complete
            mine = [one for one in status.incarnations if one.instance == name]
            assert [one.how for one in mine] == ["receipt"] * len(mine)
            assert sum(one.keys for one in mine) > 0
            assert not await _serves(client, tenant)
        finally:
            await Kills(admin, [EU]).lift(hold.id, "over", admin.around.until(30))
        await eventually(lambda: _serves(client, tenant))
