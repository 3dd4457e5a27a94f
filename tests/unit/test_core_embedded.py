"""What a Core does for an embedded Gateway: what its application may do, and nothing else."""

from dataclasses import replace

import pytest
from kcm_killswitch.model.hold_set import HoldState
from kcm_schemas.app import AppGrant
from kcm_schemas.codes import Code
from kcm_schemas.names import key_target

from tests.unit.app_rig import app, following
from tests.unit.ask_rig import Application, service_gateways, unwrap
from tests.unit.core_rig import EMBEDDING, World
from tests.unit.refusals import refusal
from tests.unit.roster_changes import changed, signed_roster
from tests.unit.test_core_wrapping import fresh
from tests.unit.trust_rig import hold
from tests.vectors.families.messages import identity

NAME = EMBEDDING.app


@pytest.fixture
async def core(world: World):
    return await world.core().made()


@pytest.fixture
def gateway(core):
    return core.client()


@pytest.fixture
async def keys(gateway):
    made = fresh(3)
    _, blobs = await gateway.wrap("acme", "crm", "record", made)
    return made.tobytes(), blobs


def told(core, kind):
    return [
        (fields.get("actor"), fields.get("target"), fields["code"], fields.get("count"))
        for event, fields in core.events
        if event == kind
    ]


def change(core, **fields):
    core.registry.put(following(core.registry.app(NAME), **fields))


async def test_it_asks_as_its_application_and_the_audit_names_both(core, gateway, keys):
    assert (await unwrap(gateway, keys[1])).keys == keys[0]
    assert told(core, "keys.wrap") == [("gw-eu", f"app {NAME}", Code.OK, 3)]
    assert told(core, "keys.unwrap") == [("gw-eu", f"app {NAME}", Code.OK, 3)]


async def test_its_own_grants_count_too(gateway, keys):
    error = await refusal(unwrap(gateway, keys[1], place="bcme/crm"))
    assert error.code is Code.FORBIDDEN


ENCRYPT = [AppGrant(tenant="acme", service="crm", verbs=["encrypt"])]
OTHER = [AppGrant(tenant="acme", service="hr", verbs=["decrypt", "encrypt"])]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"grants": ENCRYPT}, "no grant to decrypt"),
        ({"grants": OTHER}, "no grant to decrypt"),
        ({"grants": []}, "no grant to decrypt"),
        ({"regions": ["us"]}, "may not act in this region"),
        ({"revoked": True}, "is revoked"),
        ({"not_after_ms": 1}, "has expired"),
        ({"not_before_ms": 1 << 45}, "not valid yet"),
    ],
)
async def test_what_its_application_may_not_is_not_unwrapped(core, gateway, keys, fields, text):
    change(core, **fields)
    error = await refusal(unwrap(gateway, keys[1]))
    assert error.code is Code.FORBIDDEN
    assert text in error.detail
    assert told(core, "keys.unwrap") == []
    # Refusals are counted, so that a Gateway cannot fill the trail.
    for _ in range(20):
        await refusal(unwrap(gateway, keys[1]))
    assert len(told(core, "trust.refused")) == 1


async def test_it_wraps_only_where_its_application_may_encrypt(core, gateway):
    change(core, grants=[AppGrant(tenant="acme", service="crm", verbs=["decrypt"])])
    error = await refusal(gateway.wrap("acme", "crm", "record", fresh(3)))
    assert (error.code, "no grant to encrypt" in error.detail) == (Code.FORBIDDEN, True)


async def test_a_hold_on_the_key_of_its_application_ends_it(core, gateway, keys):
    target = key_target(NAME, EMBEDDING.public_key)
    core.revocations.learn(HoldState(hold(scope="app", target=target), b"raw"))
    error = await refusal(unwrap(gateway, keys[1]))
    assert (error.code, "out of service" in error.detail) == (Code.FORBIDDEN, True)


async def test_a_revocation_while_the_root_key_is_opened_is_not_missed(core, gateway, keys):
    core.purge("acme")  # the next unwrap waits for the customer's key
    calls = len(core.world.unsealer.calls)

    async def revoke(*_):
        if not core.registry.app(NAME).revoked:
            change(core, revoked=True)

    core.world.unsealer.hook = revoke
    error = await refusal(unwrap(gateway, keys[1]))
    assert len(core.world.unsealer.calls) > calls
    assert (error.code, "is revoked" in error.detail) == (Code.FORBIDDEN, True)


async def test_a_gateway_that_is_not_embedded_gets_nothing_in_its_place(core, gateway, keys):
    service_gateways(core)
    assert set((await unwrap(gateway, keys[1])).bad.values()) == {Code.FORBIDDEN}


async def test_another_application_on_the_roster_counts_from_the_next_session_on(
    core, gateway, keys
):
    core.me.rosters.take(signed_roster(changed({"gw-eu": {"application": "nobody"}})))
    error = await refusal(unwrap(gateway, keys[1]))
    assert (error.code, "not known" in error.detail) == (Code.FORBIDDEN, True)


async def test_it_asks_for_no_other_application(core, gateway, keys):
    core.registry.put(app("shop", "acme/crm"))
    done = await unwrap(gateway, keys[1], await Application(core).part(keys[1]))
    assert set(done.bad.values()) == {Code.FORBIDDEN}
    assert told(core, "keys.unwrap") == [("gw-eu", "", Code.FORBIDDEN, 3)]


async def test_another_key_of_its_application_does_not_bring_it_back(core, gateway, keys):
    """Its host was stolen: a rotation gives the application a key, and its Gateway has its own."""
    target = key_target(NAME, EMBEDDING.public_key)
    state = HoldState(hold(scope="app", target=target), b"raw")
    core.revocations.learn(state)
    change(core, public_key=identity("another").public)
    error = await refusal(unwrap(gateway, keys[1]))
    assert (error.code, "until that hold is lifted" in error.detail) == (Code.FORBIDDEN, True)
    core.revocations.learn(replace(state, lift=b"lift"))
    assert (await unwrap(gateway, keys[1])).keys == keys[0]
