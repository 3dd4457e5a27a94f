"""The way between an application and its Gateway on a real bus, with an attacker on it."""

import contextlib
import time

import pytest
from kcm import Admin, Client, Forbidden, KcmError
from kcm._internal import app_entries, statements
from kcm.errors import ServiceError
from kcm_devsystem import applications
from kcm_runtime.files.identity_file import create_identity
from kcm_schemas import data_subjects
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code
from kcm_schemas.data import EncryptReply, Failure
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
    name = f"narrow-{time.time_ns()}"
    identity = create_identity(name, str(tmp_path / "key"), living.context.system)
    context = tmp_path / "context.toml"
    text = living.context.path.read_text()
    before, _, _ = text.partition("[app]")
    rest = text.partition("[app]")[2].partition("\n\n")[2]
    context.write_text(f'{before}[app]\nname = "{name}"\nkey = "{tmp_path / "key"}"\n\n{rest}')
    context.chmod(0o600)
    entry = applications.entry(living.context, [f"{mine}/crm"]).model_copy(
        update={"app": name, "public_key": identity.public}
    )
    async with Admin.open(living.context) as admin:
        for region in living.context.regions:
            await admin.put(region, "app", statements.app(admin.identity, entry))
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
        unknown = SealedRequest(v=1, caller=name, session_id=bytes(16), counter=1, sealed=b"")
        reply = decode(Failure, await plain.request(sealed, encode(unknown), 2))
        assert reply.error is Code.UNKNOWN_SESSION
