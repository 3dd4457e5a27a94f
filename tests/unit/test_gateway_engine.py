"""The engine: codes of single records, contexts, both scopes, and which tenants are served."""

import asyncio

import pytest
from kcm_gateway import engine as engine_module
from kcm_gateway import pieces as pieces_module
from kcm_gateway.keys.lookup import REQUESTS_MAX
from kcm_killswitch.model.hold_set import HoldState
from kcm_schemas import record
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Tenant
from kcm_schemas.results import BatchFailed

from tests.unit.core_rig import TENANT
from tests.unit.gateway_rig import Rig
from tests.unit.refusals import refused
from tests.unit.trust_rig import hold

PLAINS = [b"", b"a", b"b" * 100, b"c" * 5000]


@pytest.fixture
async def rig(tmp_path):
    made = await Rig.make(tmp_path)
    yield made
    made.engine.close()


@pytest.mark.parametrize("scope", ["record", "batch"])
@pytest.mark.parametrize("contexts", [None, b"all", [b"0", b"1", b"2", b"3"]])
async def test_what_was_encrypted_is_decrypted_with_its_context_only(rig, scope, contexts):
    sealed = await rig.engine.encrypt("acme", "crm", PLAINS, contexts, dek_scope=scope)
    assert sealed.codes == []
    opened = await rig.engine.decrypt("acme", "crm", sealed.values, contexts)
    assert (opened.values, opened.codes) == (PLAINS, [])
    wrong = await rig.engine.decrypt("acme", "crm", sealed.values, b"other")
    assert wrong.codes == [Code.TAMPERED] * 4
    assert wrong.columns()[0] == [b""] * 4
    with pytest.raises(BatchFailed, match=r"4 of 4 records failed; the first is \[0\]: tampered"):
        _ = wrong.values
    assert [error.code for error in wrong.results] == [Code.TAMPERED] * 4
    assert "4 failed" in repr(wrong)


async def test_every_record_has_a_key_of_its_own_or_the_batch_shares_one(rig):
    for scope, keys in (("record", 4), ("batch", 1)):
        sealed = await rig.engine.encrypt("acme", "crm", PLAINS, dek_scope=scope)
        headers = [record.parse(value) for value in sealed.values]
        assert len({header.wrapped for header in headers}) == keys
        assert len({(header.wrapped, header.index) for header in headers}) == 4


async def test_a_piece_asks_a_core_once_for_all_of_its_keys(rig):
    plains = [n.to_bytes(2, "big") for n in range(pieces_module.PIECE)]
    sealed = await rig.engine.encrypt("acme", "crm", plains)
    assert rig.wire.count("wrap") == 1
    opened = await rig.engine.decrypt("acme", "crm", sealed.values)
    assert (opened.values, opened.codes) == (plains, [])
    assert rig.wire.count("unwrap") == 1


@pytest.mark.parametrize("spoiled", [0, 1, 3])
async def test_one_record_that_is_cut_or_spoiled_spoils_no_other_of_its_batch(rig, spoiled):
    sealed = (await rig.engine.encrypt("acme", "crm", PLAINS, dek_scope="batch")).values
    rest = [plain for at, plain in enumerate(PLAINS) if at != spoiled]
    end = len(record.parse(sealed[spoiled]).raw)
    other = (await rig.engine.encrypt("acme", "crm", [b"x"])).values[0]
    for value, code in (
        (sealed[spoiled][: end + 15], Code.MALFORMED),
        (sealed[spoiled][: end - 2], Code.MALFORMED),
        (sealed[spoiled][:-1] + bytes([sealed[spoiled][-1] ^ 1]), Code.TAMPERED),
        (sealed[spoiled][: end - 1] + b"\x09" + sealed[spoiled][end:], Code.TAMPERED),
        (other, Code.OK),
    ):
        records = [*sealed[:spoiled], value, *sealed[spoiled + 1 :]]
        done = await rig.engine.decrypt("acme", "crm", records)
        codes = done.codes or [Code.OK] * len(records)
        assert codes.pop(spoiled) is code
        assert set(codes) == {Code.OK}
        values = done.columns()[0]
        assert values.pop(spoiled) == (b"x" if code is Code.OK else b"")
        assert values == rest


async def test_no_nonce_under_a_shared_key_comes_twice_though_batches_are_given_up(rig):
    """A batch that was cancelled, killed or failed takes its key with it."""
    seen = set()
    for round_ in range(6):
        task = asyncio.create_task(rig.engine.encrypt("acme", "crm", PLAINS * 3, dek_scope="batch"))
        if round_ % 2:
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            for value in (await task).values:
                header = record.parse(value)
                assert (header.wrapped, header.index) not in seen
                seen.add((header.wrapped, header.index))
    assert seen


async def test_each_record_has_its_own_code(rig):
    (good,) = (await rig.engine.encrypt("acme", "crm", [b"x"])).values
    header = record.parse(good)
    at = len(record.names("eu", "acme", "crm"))

    def named(region, tenant, service):
        return record.names(region, tenant, service) + good[at:]

    def version(number):
        return good[:at] + number.to_bytes(4, "big") + good[at + 4 :]

    cases = {
        good: Code.OK,
        b"": Code.MALFORMED,
        good[:-20]: Code.MALFORMED,
        b"KCM2" + good[4:]: Code.MALFORMED,
        named("us", "acme", "crm"): Code.WRONG_REGION,
        named("eu", "bcme", "crm"): Code.FORBIDDEN,
        named("eu", "acme", "hr"): Code.FORBIDDEN,
        version(2): Code.KEY_DESTROYED,
        good[:-1] + bytes([good[-1] ^ 1]): Code.TAMPERED,
        good + b"x": Code.TAMPERED,
        good.replace(header.wrapped, bytes(72)): Code.TAMPERED,
    }
    done = await rig.engine.decrypt("acme", "crm", list(cases))
    assert dict(zip(cases, done.codes, strict=True)) == cases
    assert [value for value in done.results if isinstance(value, bytes)] == [b"x"]
    zero = await rig.engine.decrypt("acme", "crm", [version(0), good])
    assert zero.codes[0] in {Code.MALFORMED, Code.KEY_DESTROYED}
    assert zero.columns()[0] == [b"", b"x"]


async def test_contexts_are_bounded_in_number_and_size(rig):
    for contexts, code in (
        ([b"", b""], Code.MALFORMED),
        ([b"for all?"], Code.MALFORMED),
        ([], Code.MALFORMED),
        (b"x" * 4097, Code.TOO_LARGE),
        ([b"", b"", b"", b"x" * 4097], Code.TOO_LARGE),
    ):
        assert await refused(rig.engine.encrypt("acme", "crm", PLAINS, contexts)) is code
        assert await refused(rig.engine.decrypt("acme", "crm", PLAINS, contexts)) is code


async def test_a_batch_larger_than_a_piece_is_worked_through(rig, monkeypatch):
    monkeypatch.setattr(pieces_module, "PIECE", 3)
    plains = [bytes([n]) for n in range(10)]
    for scope in ("record", "batch"):
        sealed = await rig.engine.encrypt("acme", "crm", plains, b"c", dek_scope=scope)
        assert (await rig.engine.decrypt("acme", "crm", sealed.values, b"c")).values == plains


async def test_a_batch_is_shared_by_bytes_too(rig, monkeypatch):
    monkeypatch.setattr(engine_module, "BATCH_KEY_BYTES_MAX", 6000)
    sealed = await rig.engine.encrypt("acme", "crm", PLAINS * 2, dek_scope="batch")
    assert len({record.parse(value).wrapped for value in sealed.values}) == 2
    assert (await rig.engine.decrypt("acme", "crm", sealed.values)).values == PLAINS * 2


# Which tenants are served


async def test_a_tenant_that_is_not_registered_here_is_not_served(rig):
    """A kill of its link would not reach it."""
    assert await refused(rig.engine.encrypt("bcme", "crm", [b""])) is Code.UNKNOWN_TENANT
    assert await refused(rig.engine.decrypt("bcme", "crm", [b""])) is Code.UNKNOWN_TENANT
    assert rig.fetched == ["bcme", "bcme"]
    rig.store(Tenant(tenant="bcme", revision=1, link="l", regions=["us"], region_quorum="all"))
    assert await refused(rig.engine.encrypt("bcme", "crm", [b""])) is Code.UNKNOWN_TENANT
    assert rig.wire.asked == []


async def test_a_tenant_that_was_registered_a_moment_ago_is_looked_up(rig):
    rig.registry.drop(TENANT)
    rig.store(TENANT)
    assert (await rig.engine.encrypt("acme", "crm", [b"x"])).values
    assert rig.fetched == ["acme"]
    rig.registry.drop(TENANT)
    rig.store(TENANT.model_copy(update={"revision": 2}))
    rig.revocations.learn(HoldState(hold(scope="link", target=TENANT.link), b"raw"))
    assert await refused(rig.engine.encrypt("acme", "crm", [b"x"])) is Code.TENANT_KILLED


async def test_names_that_do_not_exist_leave_nothing_behind(rig):
    for number in range(50):
        asked = rig.engine.encrypt("acme", f"s{number}", [b""])
        assert await refused(asked) is Code.UNKNOWN_SERVICE
    assert await refused(rig.engine.encrypt("acme", "*", [b""])) is Code.MALFORMED
    status = rig.engine.status()
    assert (status.pools, status.queues, status.tenants) == (0, 0, 0)
    assert rig.live_keys() == []


async def test_a_closed_engine_has_no_key_and_makes_none(tmp_path):
    rig = await Rig.make(tmp_path, cache_keys_max=16)
    sealed = await rig.engine.encrypt("acme", "crm", [b"x"])
    rig.engine.purge("acme")
    await rig.engine.decrypt("acme", "crm", sealed.values)
    assert rig.live_keys()  # in the cache of a tenant that has no pool
    blocks = rig.live_keys()
    rig.engine.close()
    assert rig.live_keys() == []
    assert all(block.purged for block in blocks)
    assert await refused(rig.engine.encrypt("acme", "crm", [b"x"])) is Code.UNAVAILABLE
    assert await refused(rig.engine.decrypt("acme", "crm", sealed.values)) is Code.UNAVAILABLE


@pytest.mark.parametrize("operation", ["encrypt", "decrypt"])
async def test_who_waits_when_the_engine_is_closed_is_not_told_of_a_kill(tmp_path, operation):
    rig = await Rig.make(tmp_path)
    sealed = await rig.engine.encrypt("acme", "crm", [b"x"])
    rig.engine.purge("acme")
    await rig.wire.take_arrivals()
    rig.wire.gate.clear()
    argument = [b"x"] if operation == "encrypt" else sealed.values
    working = asyncio.create_task(getattr(rig.engine, operation)("acme", "crm", argument))
    await rig.wire.arrived.acquire()
    rig.engine.close()
    rig.wire.gate.set()
    assert await refused(working) is Code.UNAVAILABLE
    assert rig.live_keys() == []


# Replies


async def test_a_reply_that_was_held_up_beyond_its_lease_is_discarded(rig):
    def late(answer):
        rig.clock.now += 10.0
        return answer

    rig.wire.after = late
    assert await refused(rig.engine.encrypt("acme", "crm", [b"x"])) is Code.DEADLINE_EXCEEDED
    assert rig.engine.status().pools == 0


async def test_a_reply_is_of_no_use_for_another_request(rig):
    answers = []

    def first_again(answer):
        answers.append(answer)
        return answers[0]

    rig.wire.after = first_again
    sealed = await rig.engine.encrypt("acme", "crm", [b"x"])
    assert await refused(rig.engine.decrypt("acme", "crm", sealed.values)) is Code.UNAVAILABLE


async def test_a_thousand_versions_in_one_batch_do_not_take_up_the_core(rig):
    """One version of them fails for all: its neighbours' keys must be released all the same."""
    (good,) = (await rig.engine.encrypt("acme", "crm", [b"x"])).values
    rig.engine.purge("acme")
    at = len(record.names("eu", "acme", "crm"))
    many = [good[:at] + n.to_bytes(4, "big") + good[at + 4 :] for n in range(1, 200)]
    rig.wire.most = 0
    done = await rig.engine.decrypt("acme", "crm", many)
    assert done.codes == [Code.OK] + [Code.KEY_DESTROYED] * 198
    assert rig.wire.most <= REQUESTS_MAX
    broken = iter(range(1000))

    def fails(answer):
        if next(broken) == 2:
            raise KcmError(Code.BUSY)
        return answer

    rig.wire.after = fails
    assert await refused(rig.engine.decrypt("acme", "crm", many)) is Code.BUSY
    await rig.quiet()
    assert rig.live_keys() == []
