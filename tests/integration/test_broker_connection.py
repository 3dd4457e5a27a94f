"""Our connection with credentials and TLS, at a server that has the table of rights."""

from __future__ import annotations

import asyncio

import pytest
from kcm_broker.accounts import Revocation
from kcm_broker.roles import Account, inbox_prefix
from kcm_runtime.config import BusAddress
from kcm_runtime.files.secret_file import SecretFileError
from kcm_runtime.nats import credentials
from kcm_runtime.nats.connect_failures import Reason
from kcm_runtime.nats.connection import Connection
from kcm_schemas import data_subjects, subjects
from kcm_schemas.codes import Code, KcmError

from tests.integration import broker_rig as rig
from tests.integration.living import eventually

CORE = rig.scope("core", "region", "core-1")
GATEWAY = rig.scope("gateway", "region", "gateway-1")
APP = rig.scope("application", "region")
GRANT = "decrypt.acme.mail"


@pytest.fixture
async def region(tmp_path):
    async with rig.running(tmp_path) as one:
        yield one


def address(region, tmp_path, scope, **named):
    made = region.realm.user(scope, **named)
    path = tmp_path / f"{scope.role}-{scope.instance}.creds"
    credentials.write(path, made)
    inbox = inbox_prefix(scope.role, scope.instance or made.key.public)
    ca = region.ca.directory / "ca.pem"
    return BusAddress(url=region.server.url, credentials=path, inbox=inbox, ca=ca), made


async def connected(region, tmp_path, scope, **named):
    at, made = address(region, tmp_path, scope, **named)
    connection = Connection(at, scope.instance or "app")
    await asyncio.wait_for(connection.start(), 10)
    return connection, made


async def refusal(connection, subject):
    try:
        await connection.request(subject, b"", 0.3)
    except KcmError as error:
        return error.code
    return Code.OK


async def test_a_gateway_reaches_a_core_and_an_application_only_its_grants(region, tmp_path):
    core, _ = await connected(region, tmp_path, CORE)
    gateway, _ = await connected(region, tmp_path, GATEWAY)
    app, _ = await connected(region, tmp_path, APP, grants=(GRANT,))
    seen = []

    def serve(connection):
        async def answer(message):
            seen.append(message.subject)
            await connection.publish(message.reply, b"done")

        return answer

    try:
        await core.subscribe(data_subjects.core_all("eu", "core-1"), serve(core))
        await gateway.subscribe(data_subjects.gateway_all_at("eu", "gateway-1"), serve(gateway))
        for connection in (core, gateway):
            await connection.flush()
        unwrap = data_subjects.core("eu", "core-1", "unwrap", "acme", "mail")
        own = data_subjects.gateway_at("eu", "gateway-1", "decrypt", "acme", "mail")
        assert await gateway.request(unwrap, b"", 2) == b"done"
        assert await app.request(own, b"", 2) == b"done"
        heard = len(seen)
        for subject in (
            unwrap,  # an application never speaks to a Core
            data_subjects.gateway_at("eu", "gateway-1", "decrypt", "bcme", "mail"),
            data_subjects.gateway_at("eu", "gateway-1", "encrypt", "acme", "mail"),
            subjects.admin("eu", "hold", "put"),
            "$JS.API.INFO",
        ):
            assert await refusal(app, subject) is Code.UNAVAILABLE, subject
        assert len(seen) == heard
    finally:
        for connection in (app, gateway, core):
            await connection.close()


async def test_a_revoked_user_is_sent_away_and_told_why_and_returns_with_a_new_token(
    region, tmp_path
):
    app, made = await connected(region, tmp_path, APP, grants=(GRANT,))
    try:
        system = await region.join(rig.scope("pusher", "system"))
        pusher = region.realm.pusher(system.client)
        (before,) = await pusher.present(region.realm.accounts[Account.REGION].public)
        revoked = [Revocation(made.key.public, rig.now_s())]
        token = region.realm.issue(Account.REGION, revocations=revoked, after=before)
        await pusher.push(token)

        async def gone():
            failure = app.failure
            return not app.connected and failure is not None and failure.reason is Reason.LOGIN

        await eventually(gone)
        later = region.realm.user(APP, key=made.key, grants=(GRANT,), after=rig.now_s() + 1)
        credentials.write(tmp_path / "application-.creds", later)

        async def back():
            return app.connected

        await eventually(back)
    finally:
        await app.close()


async def test_nothing_is_sent_to_a_server_that_another_authority_vouches_for(region, tmp_path):
    at, _ = address(region, tmp_path, CORE)
    other = rig.Ca(tmp_path / "other")
    connection = Connection(at.model_copy(update={"ca": other.directory / "ca.pem"}), "core-1")
    starting = asyncio.create_task(connection.start())

    async def refused():
        return connection.failure is not None and connection.failure.reason is Reason.CERTIFICATE

    await eventually(refused)
    starting.cancel()
    await asyncio.wait({starting})
    await connection.close()


@pytest.mark.parametrize("fault", ["missing", "open to others", "no credentials", "no authority"])
async def test_files_that_cannot_be_used_end_the_start(region, tmp_path, fault):
    at, _ = address(region, tmp_path, CORE)
    match fault:
        case "missing":
            at.credentials.unlink()
        case "open to others":
            at.credentials.chmod(0o644)
        case "no credentials":
            at.credentials.write_text("nothing")
        case "no authority":
            at.ca.write_text("nothing")
    with pytest.raises(SecretFileError) as error:
        await Connection(at, "core-1").start()
    named = at.ca if fault == "no authority" else at.credentials
    assert str(named) in str(error.value)
