"""A key is tried before it is linked; one that does not work leaves nothing behind."""

import pytest
from kcm_core.providers.state import L1Error, L1State
from kcm_core.root_keys.key_check import check
from kcm_core.unsealer.worker import unknown
from kcm_schemas.admin.links import LinkView
from kcm_schemas.admin.requests import PutStatement
from kcm_schemas.codec import decode
from kcm_schemas.codes import Code
from kcm_schemas.signed import Kind

from tests.unit.admin_requests import ask, put, request
from tests.unit.core_rig import LINK, URI, signed


async def linked(core, link=LINK):
    raw = request(core, "link", "put", PutStatement(statement=signed(Kind.LINK, link)))
    return await ask(core, raw, "link", "put")


async def test_what_works_is_linked_and_described(world):
    core = world.core()
    code, payload = await linked(core)
    assert code is Code.OK
    view = decode(LinkView, payload)
    assert (view.link, view.region, view.mechanism) == ("acme-root", "eu", "aes-gcm")
    assert (view.key_version, view.principal) == ("0", "fake")
    assert core.registry.link("acme-root") == LINK


@pytest.mark.parametrize("state", [state for state in L1State if state is not L1State.ENABLED])
async def test_what_does_not_work_leaves_nothing(world, state):
    core = world.core()
    world.unsealer.key(URI).state = state
    expected = Code.UNAVAILABLE if state is L1State.UNREACHABLE else Code.FORBIDDEN
    assert await put(core, LINK) is expected
    assert not world.bus.stream.stored
    assert core.registry.link("acme-root") is None
    world.unsealer.key(URI).state = L1State.ENABLED
    assert await put(core, LINK) is Code.OK


async def test_a_key_that_lacks_what_is_demanded_is_linked_for_byok_alone(world):
    core = world.core()
    world.unsealer.key(URI).facts = {"bits": "128"}
    hyok = LINK.model_copy(update={"model": "hyok"})
    assert await put(core, hyok) is Code.FORBIDDEN
    assert core.registry.link("acme-root") is None
    assert await put(core, LINK.model_copy(update={"link": "other-root"})) is Code.OK
    world.unsealer.key(URI).facts = {"bits": "256"}
    assert await put(core, hyok) is Code.OK


async def test_a_key_at_which_nobody_may_look_is_linked_for_byok_alone(world):
    async def refuses_looks(operation, uri):
        if operation == "inspect":
            raise L1Error(L1State.FORBIDDEN, "no")

    world.unsealer.hook = refuses_looks
    checked = await trying(world.unsealer)
    assert checked.state is L1State.ENABLED
    assert checked.lacks == ("the key's attributes cannot be read: forbidden: no",)
    core = world.core()
    assert await put(core, LINK.model_copy(update={"model": "hyok"})) is Code.FORBIDDEN
    assert core.registry.link("acme-root") is None
    assert await put(core, LINK) is Code.OK


@pytest.mark.parametrize("uri", ["", "nonsense", "awskms:alias/x", "pkcs11:token=t"])
async def test_a_uri_that_is_none_reaches_nobody(world, uri):
    assert await put(world.core(), LINK.model_copy(update={"uri": uri})) is Code.MALFORMED
    assert world.unsealer.calls == []
    assert not world.bus.stream.stored


def trying(unsealer):
    return check(unsealer, URI, deadline_s=5.0, now=lambda: 0.0, random=lambda n: bytes(range(n)))


async def test_a_key_that_opens_to_something_else_is_not_to_be_believed(world):
    unwrap = world.unsealer.unwrap_into

    async def lies(uri, blob, context, mechanism, out, *, deadline_s):
        told = await unwrap(uri, blob, context, mechanism, out, deadline_s=deadline_s)
        out[-1] ^= 1
        return told

    world.unsealer.unwrap_into = lies
    checked = await trying(world.unsealer)
    assert checked.state is L1State.INVALID
    assert [step.name for step in checked.steps] == ["wrap", "unwrap"]


async def test_a_key_that_takes_any_context_is_not_to_be_believed(world):
    unwrap, wrapped_under = world.unsealer.unwrap_into, []

    async def any_context(uri, blob, context, mechanism, out, *, deadline_s):
        wrapped_under.append(context)
        return await unwrap(uri, blob, wrapped_under[0], mechanism, out, deadline_s=deadline_s)

    world.unsealer.unwrap_into = any_context
    checked = await trying(world.unsealer)
    assert checked.state is L1State.INVALID
    assert checked.steps[-1].name == "another context"
    assert "another" in checked.error.detail


async def test_a_key_that_refuses_in_the_middle_says_where(world):
    async def refuses_probes(operation, uri):
        if operation == "probe":
            raise L1Error(L1State.FORBIDDEN, "no")

    world.unsealer.hook = refuses_probes
    checked = await trying(world.unsealer)
    assert checked.state is L1State.FORBIDDEN
    assert [(one.name, one.state.value) for one in checked.steps] == [
        ("wrap", "enabled"), ("unwrap", "enabled"), ("canary", "forbidden"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("uri", "extra"),
    [("awskms:x", "aws"), ("gcpkms:x", "gcp"), ("azurekv:x", "azure"), ("pkcs11:x", "pkcs11")],
)
def test_a_library_that_is_missing_is_named_by_what_to_install(uri, extra):
    error = unknown(ModuleNotFoundError("s3cret"), uri)
    assert error.state is L1State.UNREACHABLE
    assert f"pip install 'kcm-core[{extra}]'" in error.detail
    assert "s3cret" not in str(error)
