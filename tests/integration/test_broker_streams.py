"""Requests, streams and consumers with the rights of the table, at a real server."""

from dataclasses import replace

import pytest
from kcm_runtime.nats.provision import _wanted
from kcm_schemas import subjects
from nats.errors import Error
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from tests.integration import broker_rig as rig

APP = rig.scope("application", "region")
GRANT = "encrypt.acme.mail"


@pytest.fixture
async def region(tmp_path):
    async with rig.running(tmp_path) as one:
        yield one


async def test_a_request_goes_to_the_core_and_back_without_allow_responses(region):
    gateway = await region.join(rig.scope("gateway", "region", "gateway-1"))
    core = await region.join(rig.scope("core", "region", "core-1"))
    app = await region.join(APP, grants=(GRANT,))

    async def forward(message):
        answer = await gateway.client.request(
            "kcm.v1.eu.core.core-1.wrap.acme.mail", message.data, timeout=5
        )
        await message.respond(answer.data)

    async def wrap(message):
        await message.respond(b"wrapped " + message.data)

    await core.client.subscribe("kcm.v1.eu.core.core-1.*.*.*", cb=wrap)
    await gateway.client.subscribe("kcm.v1.eu.gateway.gateway-1.*.*.*", cb=forward)
    await core.client.flush()
    await gateway.client.flush()
    place = "kcm.v1.eu.gateway.gateway-1"
    answer = await app.client.request(f"{place}.{GRANT}", b"key", timeout=5)
    assert answer.data == b"wrapped key"
    for other in ("decrypt.acme.mail", "encrypt.other.mail", "encrypt.acme.files"):
        await app.client.publish(f"{place}.{other}")
    await rig.until(lambda: len(app.errors) == 3)
    assert gateway.errors == core.errors == []


async def test_a_reply_cannot_be_sent_where_the_asker_wishes(region):
    """An operator names the bucket of keys as reply: the Core may not publish there."""
    core = await region.join(rig.scope("core", "region", "core-1"))
    await core.client.publish("$KV.kcm-keys.tenant.acme", b"answer")
    await core.client.publish("$JS.API.STREAM.DELETE.KCM_CONTROL")
    await core.client.publish("$JS.eu.API.STREAM.DELETE.KCM_CONTROL")
    await rig.until(lambda: len(core.errors) == 3)
    assert "$js.api.stream.delete.kcm_control" in str(core.errors[2])  # as the server maps it


async def provision(region):
    places = {}
    for account in ("region", "vault"):
        places[account] = await region.join(rig.scope("provisioner", account))
    for config in _wanted("eu", 1):
        one = places["vault" if config.name == "KV_kcm-keys" else "region"]
        js = one.client.jetstream()
        await js.add_stream(config.evolve(max_bytes=1 << 20))
        assert (await js.stream_info(config.name)).config.deny_delete
        assert one.errors == []


def following(inbox, name, subject):
    return ConsumerConfig(
        name=name,
        deliver_subject=inbox,
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.NONE,
        filter_subject=subject,
        inactive_threshold=30.0,
        mem_storage=True,
    )


async def test_streams_are_written_read_and_followed_by_named_consumers(region):
    await provision(region)
    core = await region.join(rig.scope("core", "region", "core-1"))
    vault = await region.join(rig.scope("core", "vault", "core-1"))
    gateway = await region.join(rig.scope("gateway", "region", "gateway-1"))
    js, seen = gateway.client.jetstream(timeout=5), []

    async def receive(message):
        seen.append(message.subject)

    every = subjects.control_all("eu")
    inbox = gateway.client.new_inbox()
    await gateway.client.subscribe(inbox, cb=receive)
    await js.add_consumer("KCM_CONTROL", following(inbox, "follow-1", every))
    trim, own = subjects.control_trim("eu"), subjects.control_lease("eu", "gateway-1", b"\x01")
    await core.client.jetstream().publish(trim, b"trim")
    await js.publish(own, b"lease")
    await rig.until(lambda: seen == [trim, own])
    assert (await js.get_last_msg("KCM_CONTROL", trim)).data == b"trim"
    with pytest.raises(NotFoundError):
        await js.get_last_msg("KV_kcm-registry", "$KV.kcm-registry.tenant.acme")

    short = gateway.client.jetstream(timeout=0.3)
    for config in (
        replace(following(inbox, "", every), name=None),
        following(inbox, "follow-2", "kcm.v1.eu.audit.*"),
    ):
        with pytest.raises((Error, TimeoutError)):
            await short.add_consumer("KCM_CONTROL", config)
    with pytest.raises((Error, TimeoutError)):
        await short.publish(subjects.control_lease("eu", "gateway-2", b"\x01"), b"lease")

    keys = vault.client.jetstream()
    key = subjects.bucket_subject("kcm-keys", "tenant", "acme")
    await keys.publish(key, b"wrapped")
    assert (await keys.get_last_msg("KV_kcm-keys", key)).data == b"wrapped"


async def test_the_body_of_a_consumer_cannot_differ_from_its_subject(region):
    await provision(region)
    auditor = await region.join(rig.scope("auditor", "region", "auditor-1"))
    subject = "$JS.API.CONSUMER.CREATE.KCM_AUDIT.n1.kcm.v1.eu.audit.*"
    for body in (
        b'{"stream_name":"KCM_CONTROL","config":{"name":"n1","filter_subject":"kcm.v1.eu.audit.*"}}',
        b'{"stream_name":"KCM_AUDIT","config":{"name":"n1","filter_subject":">"}}',
    ):
        answer = await auditor.client.request(subject, body, timeout=5)
        assert b'"error"' in answer.data
    assert auditor.errors == []
