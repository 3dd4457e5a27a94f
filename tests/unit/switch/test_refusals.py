"""A flood of forgeries is on record, hides nothing, and does not fill the record."""

import pytest
from kcm_runtime.audit.pacing import EVERY_S
from kcm_runtime.audit.rejection_log import KINDS_MAX, RejectionLog
from kcm_trust.envelopes import Untrusted

from tests.fakes.virtual import let_pass


@pytest.fixture
def told():
    return []


@pytest.fixture
def refusals(told):
    return RejectionLog("control", lambda kind, **fields: told.append((kind, fields)))


def seen(told):
    return [(one.get("actor"), one.get("tenant"), one["count"]) for _, one in told]


async def test_the_first_is_recorded_and_the_rest_is_counted(refusals, told):
    for _ in range(1000):
        refusals.record(ValueError("not signed"))
    assert seen(told) == [(None, None, 1)]
    assert told[0][0] == "trust.refused"
    await let_pass(EVERY_S + 1)
    assert seen(told) == [(None, None, 1), (None, None, 999)]


async def test_the_rest_is_recorded_though_nothing_more_comes_or_the_process_ends(refusals, told):
    for tenant in ("innocent", "one", "two", "three"):
        for _ in range(1 if tenant == "innocent" else 1000):
            refusals.record(ValueError("outside"), actor="gw-eu", tenant=tenant)
    refusals.close()
    assert seen(told) == [
        *[("gw-eu", tenant, 1) for tenant in ("innocent", "one", "two", "three")],
        *[("gw-eu", tenant, 999) for tenant in ("one", "two", "three")],
    ]
    refusals.close()
    assert len(told) == 7


async def test_a_harmless_forgery_hides_no_other(refusals, told):
    for reason in ("larger than a statement", "the signer is not known"):
        refusals.record(ValueError(reason))
    assert [fields["detail"] for _, fields in told] == [
        "control: larger than a statement", "control: the signer is not known",
    ]  # fmt: skip


async def test_details_that_a_sender_varies_are_one_kind_and_hide_no_other(refusals, told, caplog):
    for n in range(10 * KINDS_MAX):
        refusals.record(Untrusted("the signer is not on the roster", f"forged-{n}"))
    refusals.record(Untrusted("a signature is not valid", "core-eu-1"))
    assert [(fields["detail"], fields["count"]) for _, fields in told] == [
        ("control: the signer is not on the roster", 1),
        ("control: a signature is not valid", 1),
    ]
    await let_pass(EVERY_S + 1)
    assert told[-1][1]["count"] == 10 * KINDS_MAX - 1
    assert "rejected (1 times): control: a signature is not valid: core-eu-1" in caplog.text
    assert f"the signer is not on the roster: forged-{10 * KINDS_MAX - 1}" in caplog.text


async def test_nobody_fills_the_record_or_takes_anothers_place(refusals, told):
    for n in range(10 * KINDS_MAX):
        refusals.record(ValueError("outside"), actor="gw-eu", tenant=f"t{n}")
    assert len(told) == KINDS_MAX + 1
    refusals.record(ValueError("outside"), actor="gw-us", tenant="acme")
    assert seen(told)[-1] == ("gw-us", "acme", 1)
    await let_pass(EVERY_S + 1)
    assert seen(told)[KINDS_MAX + 2 :] == [("gw-eu", None, 9 * KINDS_MAX - 1)]
    assert sum(count for _, _, count in seen(told)) == 10 * KINDS_MAX + 1
    refusals.record(ValueError("outside"), actor="gw-eu", tenant="t0")
    assert seen(told)[-1] == ("gw-eu", "t0", 1), "there is room again"
