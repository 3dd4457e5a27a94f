"""Streams of a real broker: what no client can empty, and settings that were weakened."""

import json

import pytest
from kcm_runtime.nats.jetstream_errors import StreamMissing
from kcm_runtime.nats.provision import (
    CORE_STREAMS,
    VAULT_STREAMS,
    acknowledged,
    check_streams,
    provision_region,
)
from kcm_runtime.nats.stream_protection import Unfit
from kcm_runtime.nats.streams import last, put
from kcm_schemas import subjects
from nats.js import errors as js_errors

from tests.integration.bus.broker import REGION, SUBJECT


async def test_provisioning_again_changes_nothing(link):
    await provision_region(link, REGION, vault_bus=link)
    await put(link, subjects.control_hold(REGION, "tenant", bytes(16)), b"kept")
    await provision_region(link, REGION, vault_bus=link)
    stored = await last(
        link, subjects.CONTROL_STREAM, subjects.control_hold(REGION, "tenant", bytes(16))
    )
    assert stored.data == b"kept"


PURGEABLE = frozenset({subjects.AUDIT_STREAM})
"""Streams that may be purged, and by nothing else be emptied.

The server lets such a stream be rolled up or given delete markers later: whoever starts notices.
"""


async def api(link, verb, body=None):
    """What JetStream's API answers: the error's text, or nothing."""
    raw = await link.request(f"$JS.API.{verb}", json.dumps(body or {}).encode(), 5)
    return json.loads(raw).get("error", {}).get("description", "")


@pytest.mark.parametrize("stream", [*CORE_STREAMS, *VAULT_STREAMS])
async def test_no_login_of_the_broker_can_empty_a_stream(link, stream):
    """Whoever may call the broker's whole API and publish anything tries to remove messages."""
    await provision_region(link, REGION, vault_bus=link)
    subject = SUBJECT[stream]
    sequence = await put(link, subject, b"kept")
    refused = "not permitted"
    if stream not in PURGEABLE:
        assert refused in await api(link, f"STREAM.PURGE.{stream}")
        assert refused in await api(link, f"STREAM.PURGE.{stream}", {"filter": subject})
    for no_erase in (False, True):
        told = {"seq": sequence, "no_erase": no_erase}
        assert refused in await api(link, f"STREAM.MSG.DELETE.{stream}", told)
    for scope in ("sub", "all"):
        with pytest.raises(js_errors.APIError, match="rollup not permitted"):
            await link.jetstream().publish(subject, b"", headers={"Nats-Rollup": scope})
    config = await acknowledged(link, stream)
    attempts = [{"deny_delete": False}, {"storage": "memory"}]
    if stream not in PURGEABLE:
        attempts += [
            {"deny_purge": False},
            {"allow_rollup_hdrs": True},
            {"subject_delete_marker_ttl": 10**9},
        ]
    for change in attempts:
        assert await api(link, f"STREAM.UPDATE.{stream}", config | change), change
    assert await acknowledged(link, stream) == config
    assert (await last(link, stream, subject)).data == b"kept"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"max_age": 3600 * 10**9}, "max_age"),
        ({"max_msgs": 1}, "max_msgs"),
        ({"max_bytes": 10**6}, "max_bytes"),
        ({"republish": {"src": ">", "dest": "copy.>"}}, "republish"),
    ],
)
async def test_what_was_weakened_later_is_named_and_provisioning_mends_it(link, change, field):
    """The broker lets its limits be changed at any time: whoever starts then notices."""
    await provision_region(link, REGION, vault_bus=link)
    await check_streams(link, REGION, CORE_STREAMS)
    config = await acknowledged(link, subjects.CONTROL_STREAM)
    assert not await api(link, "STREAM.UPDATE.KCM_CONTROL", config | change)
    with pytest.raises(Unfit, match=f"KCM_CONTROL: {field}.*provision the region again"):
        await check_streams(link, REGION, CORE_STREAMS)
    await provision_region(link, REGION, vault_bus=link)
    await check_streams(link, REGION, CORE_STREAMS)
    assert await acknowledged(link, subjects.CONTROL_STREAM) == config


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"allow_rollup_hdrs": True}, "allow_rollup_hdrs"),
        ({"subject_delete_marker_ttl": 60 * 10**9}, "allow_rollup_hdrs.*subject_delete_marker_ttl"),
    ],
)
async def test_rolling_up_the_audit_stream_is_noticed_and_forbidden_again(link, change, field):
    """It may be purged, so the server lets it be rolled up as well, which nobody needs."""
    await provision_region(link, REGION, vault_bus=link)
    config = await acknowledged(link, subjects.AUDIT_STREAM)
    assert not await api(link, f"STREAM.UPDATE.{subjects.AUDIT_STREAM}", config | change)
    with pytest.raises(Unfit, match=f"KCM_AUDIT: {field}.*provision the region again"):
        await check_streams(link, REGION, CORE_STREAMS)
    await provision_region(link, REGION, vault_bus=link)
    await check_streams(link, REGION, CORE_STREAMS)
    assert (await acknowledged(link, subjects.AUDIT_STREAM))["allow_rollup_hdrs"] is False
    with pytest.raises(js_errors.APIError, match="rollup not permitted"):
        await link.jetstream().publish(
            SUBJECT[subjects.AUDIT_STREAM], b"", headers={"Nats-Rollup": "all"}
        )


async def test_a_stream_with_delete_markers_lost_its_protection_and_gets_it_back(link):
    """The server turns ``deny_purge`` off for them without a word."""
    await provision_region(link, REGION, vault_bus=link)
    wanted = await acknowledged(link, subjects.CONTROL_STREAM)
    assert not await api(link, "STREAM.DELETE.KCM_CONTROL")
    made = wanted | {"subject_delete_marker_ttl": 60 * 10**9}
    assert not await api(link, "STREAM.CREATE.KCM_CONTROL", made)
    assert (await acknowledged(link, subjects.CONTROL_STREAM))["deny_purge"] is False
    subject = SUBJECT[subjects.CONTROL_STREAM]
    await put(link, subject, b"kept")
    with pytest.raises(Unfit, match="KCM_CONTROL: deny_purge is off"):
        await check_streams(link, REGION, CORE_STREAMS)
    await provision_region(link, REGION, vault_bus=link)
    assert await acknowledged(link, subjects.CONTROL_STREAM) == wanted
    assert (await last(link, subjects.CONTROL_STREAM, subject)).data == b"kept"


async def test_what_provisioning_cannot_mend_is_an_error(link):
    await provision_region(link, REGION, vault_bus=link)
    wanted = await acknowledged(link, subjects.CONTROL_STREAM)
    assert not await api(link, "STREAM.DELETE.KCM_CONTROL")
    assert not await api(link, "STREAM.CREATE.KCM_CONTROL", wanted | {"storage": "memory"})
    with pytest.raises(Unfit, match="KCM_CONTROL: storage"):
        await provision_region(link, REGION, vault_bus=link)
    await api(link, "STREAM.DELETE.KCM_CONTROL")
    with pytest.raises(StreamMissing, match="KCM_CONTROL"):
        await check_streams(link, REGION, CORE_STREAMS)
