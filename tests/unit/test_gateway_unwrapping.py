"""Unwrapping together: each asker gets its own keys, its own end, and nothing of a purge."""

import asyncio

import pytest
from kcm_gateway.keys.asks import AskPart
from kcm_gateway.keys.blocks import Blocks
from kcm_gateway.keys.lease import Lease
from kcm_gateway.keys.unwrap_batcher import REQUESTS_IN_FLIGHT_MAX, UnwrapBatcher
from kcm_keymem.arena import Purged
from kcm_schemas import limits
from kcm_schemas.asks import Ask, AskedKeys
from kcm_schemas.codec import decode
from kcm_schemas.codes import Code, KcmError

GROUP = ("acme", "crm", 1)


def blob(number):
    return number.to_bytes(72, "big")


class Core:
    """The key of a blob is its last 32 bytes; blobs from ``bad`` do not authenticate."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.gate.set()
        self.sizes = []
        self.wanted = []
        self.code = Code.TAMPERED
        self.prefixes = []
        self.error = None
        self.bad = set()

    async def unwrap(self, wanted, out):
        blobs, version = wanted.blobs, wanted.l3_version
        each = [blobs[at : at + 72] for at in range(0, len(blobs), 72)]
        self.wanted.append(wanted)
        self.sizes.append(len(each))
        self.prefixes.append(len({one[: limits.PREFIX_SIZE] for one in each}))
        lease = Lease(version, 0.0, float(len(self.sizes)))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        out[:] = b"".join(bytes(32) if one in self.bad else one[-32:] for one in each)
        return lease, {i: self.code for i, one in enumerate(each) if one in self.bad}


@pytest.fixture
def core():
    return Core()


@pytest.fixture
def blocks():
    return Blocks()


@pytest.fixture
def unwrapper(core, blocks):
    return UnwrapBatcher(core, blocks)


def keys(opened, count):
    with opened.block.use(opened.start, count) as mine:
        return [bytes(key) for key in mine.each]


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_is_asked_at_one_moment_travels_together_and_comes_apart_again(
    unwrapper, core, blocks
):
    core.bad = {blob(11)}
    asked = [[blob(10 * n + i) for i in range(n + 1)] for n in range(4)]
    done = await asyncio.gather(*(unwrapper.open(GROUP, blobs) for blobs in asked))
    assert core.sizes == [10]
    for blobs, opened in zip(asked, done, strict=True):
        got = keys(opened, len(blobs))
        for i, one in enumerate(blobs):
            assert (i in opened.bad) == (one in core.bad)
            assert got[i] == (bytes(32) if one in core.bad else one[-32:])
        blocks.release(opened.block)
    assert blocks.tenants == []
    assert (unwrapper.queues, unwrapper.requests) == (0, 0)


async def test_a_request_is_never_larger_than_it_may_be_and_never_too_many_at_once(
    unwrapper, core, blocks
):
    core.gate.clear()
    size = limits.KEYS_MAX // 2 + 1
    asking = [asyncio.create_task(unwrapper.open(GROUP, [blob(n)] * size)) for n in range(1, 11)]
    await settle()
    assert core.sizes == [size] * REQUESTS_IN_FLIGHT_MAX
    core.gate.set()
    for n, opened in enumerate(await asyncio.gather(*asking), start=1):
        assert keys(opened, 1) == [blob(n)[-32:]]
        blocks.release(opened.block)
    assert max(core.sizes) <= limits.KEYS_MAX


def scattered(numbers):
    """Blobs of a nonce prefix each."""
    return [n.to_bytes(limits.PREFIX_SIZE, "big") + blob(n)[limits.PREFIX_SIZE :] for n in numbers]


async def test_a_request_never_brings_more_prefixes_than_it_may(unwrapper, core, blocks):
    part = limits.PREFIXES_MAX // 2 - 1
    asked = [scattered(range(n * part, (n + 1) * part)) for n in range(5)]
    done = await asyncio.gather(*(unwrapper.open(GROUP, blobs) for blobs in asked))
    assert core.prefixes == [2 * part, 2 * part, part]
    for blobs, opened in zip(asked, done, strict=True):
        assert keys(opened, part) == [one[-32:] for one in blobs]
        blocks.release(opened.block)


async def test_keys_of_one_batch_travel_together_up_to_the_bound_of_keys(unwrapper, core, blocks):
    part = limits.PREFIXES_MAX
    asked = [scattered(range(part)) for _ in range(limits.KEYS_MAX // part + 1)]
    for opened in await asyncio.gather(*(unwrapper.open(GROUP, blobs) for blobs in asked)):
        blocks.release(opened.block)
    assert core.sizes == [limits.KEYS_MAX, part]
    assert core.prefixes == [part, part]


async def test_each_waiter_inherits_the_lease_of_the_request_that_brought_its_keys(
    unwrapper, core, blocks
):
    core.gate.clear()
    early = asyncio.create_task(unwrapper.open(GROUP, [blob(1)]))
    await settle()
    late = asyncio.create_task(unwrapper.open(GROUP, [blob(2)]))
    await settle()
    core.gate.set()
    assert ((await early).lease.until, (await late).lease.until) == (1.0, 2.0)
    for opened in (early.result(), late.result()):
        blocks.release(opened.block)


async def test_different_versions_services_and_tenants_never_share_a_request(unwrapper, core):
    groups = [GROUP, ("acme", "crm", 2), ("acme", "hr", 1), ("bcme", "crm", 1)]
    await asyncio.gather(*(unwrapper.open(group, [blob(1)]) for group in groups))
    assert core.sizes == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KcmError(Code.UNAVAILABLE), Code.UNAVAILABLE),
        (Purged(), None),
        (RuntimeError("a fault"), Code.INTERNAL),
        (MemoryError(), Code.INTERNAL),
    ],
)
async def test_a_failure_reaches_everybody_who_waits_and_nobody_later(
    unwrapper, core, blocks, error, code
):
    core.error = error
    done = await asyncio.gather(
        *(unwrapper.open(GROUP, [blob(n)]) for n in range(3)), return_exceptions=True
    )
    assert [getattr(one, "code", None) for one in done] == [code] * 3
    assert {type(one) for one in done} == {Purged if code is None else KcmError}
    assert len({id(one) for one in done}) == 3
    assert blocks.tenants == []
    core.error = None
    blocks.release((await unwrapper.open(GROUP, [blob(1)])).block)


async def test_when_there_is_no_memory_for_keys_everybody_is_answered(core):
    class Full(Blocks):
        full = True

        def make(self, tenant, count):
            if self.full:
                raise MemoryError("cannot map 4096 bytes for keys")
            return super().make(tenant, count)

    blocks = Full()
    unwrapper = UnwrapBatcher(core, blocks)
    for _ in range(2 * REQUESTS_IN_FLIGHT_MAX):
        with pytest.raises(KcmError) as info:
            await unwrapper.open(GROUP, [blob(1)])
        assert info.value.code is Code.INTERNAL
    blocks.full = False
    assert await unwrapper.open(GROUP, [blob(1)])


async def test_a_purge_fails_who_waits_and_who_is_under_way(unwrapper, core, blocks):
    core.gate.clear()
    first = [
        asyncio.create_task(unwrapper.open(GROUP, [blob(n)] * limits.KEYS_MAX))
        for n in range(REQUESTS_IN_FLIGHT_MAX + 2)
    ]
    other = asyncio.create_task(unwrapper.open(("bcme", "crm", 1), [blob(7)]))
    await settle()
    blocks.purge("acme")
    unwrapper.purge("acme")
    core.gate.set()
    done = await asyncio.gather(*first, return_exceptions=True)
    assert [type(one) for one in done] == [Purged] * len(first)
    assert len({id(one) for one in done}) == len(first)
    assert len(core.sizes) == REQUESTS_IN_FLIGHT_MAX + 1
    assert keys(await other, 1) == [blob(7)[-32:]]
    assert blocks.tenants == ["bcme"]


@pytest.mark.parametrize("wait", range(8))
async def test_who_gives_up_at_any_moment_leaves_no_key_and_harms_nobody(
    unwrapper, core, blocks, wait
):
    core.gate.clear()
    leaving = asyncio.create_task(unwrapper.open(GROUP, [blob(1)]))
    staying = asyncio.create_task(unwrapper.open(GROUP, [blob(2)]))
    if wait >= 4:
        await settle()
        core.gate.set()
    for _ in range(wait % 4):
        await asyncio.sleep(0)
    leaving.cancel()
    core.gate.set()
    await asyncio.wait({leaving})
    if not leaving.cancelled():
        blocks.release(leaving.result().block)
    opened = await staying
    assert keys(opened, 1) == [blob(2)[-32:]]
    blocks.release(opened.block)
    await settle()
    assert blocks.tenants == []


# What applications ask


def part(*cores, app="shop", number=0):
    ask = {
        core: Ask(core=core, session_id=bytes(16), deadline_ms=1, tags=core[-1:].encode() * 64)
        for core in cores
    }
    return AskPart(app, number, ask)


async def test_calls_share_a_request_if_the_same_cores_can_verify_what_they_ask(core, unwrapper):
    parts = [part("a", "b"), part("b", "a", app="till"), part("a"), None, part("a", "b")]
    await asyncio.gather(
        *(unwrapper.open(GROUP, [blob(n), blob(n + 9)], one) for n, one in enumerate(parts))
    )
    assert len(core.wanted) == 3
    shared = [
        [(one.app, count) for one, count in wanted.parts] for wanted in core.wanted if wanted.parts
    ]
    assert sorted(shared) == [
        [("shop", 2)],
        [("shop", 2), ("till", 2), ("shop", 2)],
    ]
    both = next(wanted for wanted in core.wanted if len(wanted.parts) == 3)
    said = decode(AskedKeys, both.plain("b")[len(both.blobs) :].tobytes()).asked
    assert [one.tag for one in said] == [b"b" * 32] * 3


@pytest.mark.parametrize("code", [Code.UNKNOWN_ASK, Code.FORBIDDEN])
async def test_an_ask_that_a_core_refuses_fails_its_call_alone(core, unwrapper, blocks, code):
    core.code = code
    good, bad = [blob(1), blob(2)], [blob(3), blob(4)]
    core.bad = set(bad)
    opened, refused = await asyncio.gather(
        *(unwrapper.open(GROUP, blobs, part("a")) for blobs in (good, bad)), return_exceptions=True
    )
    assert len(core.wanted) == 1
    assert (refused.code, opened.bad) == (code, frozenset())
    blocks.release(opened.block)
    assert not blocks.tenants
