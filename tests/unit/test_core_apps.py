"""Operators' requests about applications at a Core."""

import pytest
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.registry_objects import object_digest
from kcm_schemas.admin.apps import AppListQuery, AppPage, AppQuery, AppView
from kcm_schemas.app import AppGrant
from kcm_schemas.codec import decode
from kcm_schemas.codes import Code
from kcm_schemas.names import key_target

from tests.unit.admin_requests import ask, page, put, request, said
from tests.unit.core_rig import VERIFIER
from tests.unit.trust_rig import hold
from tests.unit.trust_table import APP


def app(name="shop", number=1, **fields):
    key = {"app": name, "public_key": bytes((number,)) * 32}
    return APP.model_copy(update=key | fields)


def following(known, **fields):
    named = {"revision": known.revision + 1, "previous": object_digest(known)}
    return known.model_copy(update=named | fields)


async def test_an_application_is_put_shown_and_revoked(world):
    core, entry = world.core(), app()
    assert await put(core, entry) is Code.OK
    assert await put(core, entry) is Code.OK
    gone = following(entry, revoked=True)
    assert await put(core, gone) is Code.OK
    assert core.registry.app("shop") == gone
    view = decode(AppView, await page(core, AppQuery(app="shop"), "app", "show"))
    assert VERIFIER.registered(view.entry, "eu") == gone
    assert not view.forked
    told = [fields["detail"] for kind, fields in core.events if kind == "app.put"]
    key = entry.public_key.hex()[:16]
    assert told == [f"revision 1, 1 grant, key {key}", f"revision 2, revoked, key {key}"]


async def test_an_application_that_another_core_took_is_shown(world):
    one, two = world.core(), world.core("core-eu-2")
    assert await put(one, app()) is Code.OK
    assert await page(two, AppQuery(app="shop"), "app", "show")


async def test_an_unknown_application_is_told(world):
    core = world.core()
    raw = request(core, "app", "show", AppQuery(app="shop"))
    assert (await ask(core, raw, "app", "show"))[0] is Code.UNKNOWN_APP


async def test_applications_are_listed_in_pages(world):
    core = world.core()
    for number, name in enumerate(("c", "a", "b"), 1):
        assert await put(core, app(name, number)) is Code.OK
    first = decode(AppPage, await page(core, AppListQuery(after="", limit=2), "app", "list"))
    assert ([one.app for one in first.apps], first.total, first.more) == (["a", "b"], 3, True)
    assert first.apps[0].grants == 1
    last = decode(AppPage, await page(core, AppListQuery(after="b", limit=2), "app", "list"))
    assert ([one.app for one in last.apps], last.more) == (["c"], False)


async def test_an_entry_that_names_another_one_is_a_conflict(world):
    core, entry = world.core(), app()
    assert await put(core, entry) is Code.OK
    assert await put(core, following(entry, plain=True)) is Code.OK
    code, text = await said(core, following(entry, revoked=True))
    assert code is Code.CONFLICT
    assert "exists already" in text
    stale = following(following(entry), revoked=True)
    code, text = await said(core, stale)
    assert (code, "was changed since this change was prepared" in text) == (Code.CONFLICT, True)


@pytest.mark.parametrize("signer", ["security", "core-eu", "gw-eu"])
async def test_only_an_admin_signs_an_application(world, signer):
    core = world.core()
    assert await put(core, app(), author=signer) is Code.FORBIDDEN
    assert core.registry.app_count == 0


async def test_no_key_has_two_names(world):
    core = world.core()
    assert await put(core, app()) is Code.OK
    code, text = await said(core, app("other"))
    assert (code, text) == (
        Code.CONFLICT,
        "the public key is that of application shop; make another one",
    )
    member = VERIFIER.roster.instances[0]
    code, text = await said(core, app("third", public_key=member.public_key))
    assert code is Code.CONFLICT
    assert member.instance in text


async def test_a_key_that_was_replaced_is_free_again(world):
    core, entry = world.core(), app()
    assert await put(core, entry) is Code.OK
    assert await put(core, following(entry, public_key=bytes((9,)) * 32)) is Code.OK
    assert await put(core, app("other")) is Code.OK


async def test_the_largest_entry_is_accepted(world):
    core = world.core()
    grants = [
        AppGrant(tenant="t" * 63, service=f"{number:063}", verbs=["decrypt", "encrypt"])
        for number in range(256)
    ]
    regions = [f"{number:063}" for number in range(32)]
    assert await put(core, app("a" * 63, grants=grants, regions=regions)) is Code.OK


async def test_a_held_key_is_shown_and_no_application_gets_it(world):
    core, entry = world.core(), app()
    assert await put(core, entry) is Code.OK
    stolen = entry.public_key
    target = key_target("shop", stolen)
    core.revocations.learn(HoldState(hold(scope="app", target=target), b"r"))
    assert decode(AppView, await page(core, AppQuery(app="shop"), "app", "show")).held
    listed = decode(AppPage, await page(core, AppListQuery(after="", limit=2), "app", "list"))
    assert listed.apps[0].held
    entry = following(entry, plain=True)
    assert await put(core, entry) is Code.OK  # its key stays held
    entry = following(entry, public_key=bytes((9,)) * 32)
    assert await put(core, entry) is Code.OK
    code, text = await said(core, following(entry, public_key=stolen))
    assert code is Code.CONFLICT
    assert "a hold keeps the public key out" in text
    assert not decode(AppView, await page(core, AppQuery(app="shop"), "app", "show")).held
