"""The table of ``kcm_trust.verify``: whose statements count, and that no other signer's does."""

from __future__ import annotations

from typing import Any

import pytest
from kcm_schemas.codec import Message, encode
from kcm_schemas.control import Hold
from kcm_schemas.registry import Link, Service
from kcm_schemas.roster import Grant, Instance, Role
from kcm_schemas.signed import Kind, Signature, Signed
from kcm_trust.verify import Untrusted, VerifiedHold, VerifiedLift, may_ask

from tests.unit.trust_rig import (
    EVERYBODY,
    INSTANCES,
    OPERATORS,
    VERIFIER,
    hold,
    lift,
)
from tests.unit.trust_table import BELIEVED, REQUEST, ROWS, STREAM_HEAD, Row, believed, ids, trim
from tests.vectors.families.messages import identity


@pytest.mark.parametrize("signer", EVERYBODY)
@pytest.mark.parametrize("row", ROWS, ids=ids)
def test_the_table(row: Row, signer: str) -> None:
    raw = encode(identity(signer).sign(row.kind, row.body))
    if signer in row.believed:
        assert row.verify(raw)
    else:
        with pytest.raises(Untrusted):
            row.verify(raw)


def test_every_kind_is_in_the_table() -> None:
    assert {row.kind for row in BELIEVED} == set(Kind) - {Kind.ROSTER}


@pytest.mark.parametrize("row", BELIEVED, ids=ids)
def test_a_signature_of_another_key_in_the_right_name(row: Row) -> None:
    good = believed(row)
    forged = identity("stranger").sign(row.kind, row.body)
    taken = [Signature(signer=row.believed[0], signature=forged.signatures[0].signature)]
    raw = encode(Signed(**(dict(good) | {"signatures": taken})))
    with pytest.raises(Untrusted):
        row.verify(raw)


@pytest.mark.parametrize("row", BELIEVED, ids=ids)
def test_another_kind_is_refused_even_rightly_signed(row: Row) -> None:
    for kind in Kind:
        if kind is row.kind:
            continue
        raw = encode(identity(row.believed[0]).sign(kind, row.body))
        with pytest.raises(Untrusted):
            row.verify(raw)
        raw = encode(Signed(**(dict(believed(row)) | {"kind": kind})))
        with pytest.raises(Untrusted):
            row.verify(raw)


@pytest.mark.parametrize("row", BELIEVED, ids=ids)
def test_every_byte_counts(row: Row) -> None:
    good = encode(believed(row))
    assert row.verify(good)
    for at in range(len(good)):
        broken = bytearray(good)
        broken[at] ^= 1
        with pytest.raises(Untrusted):
            row.verify(bytes(broken))


@pytest.mark.parametrize("row", BELIEVED, ids=ids)
def test_a_body_of_another_message_is_refused(row: Row) -> None:
    other = Link(link="l", revision=1, uri="u", model="byok")
    if isinstance(row.body, Link):
        other_body: Message = Service(tenant="acme", service="payroll", revision=1)
    else:
        other_body = other
    raw = encode(identity(row.believed[0]).sign(row.kind, other_body))
    with pytest.raises(Untrusted):
        row.verify(raw)


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x80", b"\x91" * 5_000, bytes(901 * 1024)])
@pytest.mark.parametrize("row", BELIEVED, ids=ids)
def test_what_is_not_a_statement_is_refused(row: Row, raw: bytes) -> None:
    with pytest.raises(Untrusted):
        row.verify(raw)


def test_an_untrusted_names_the_signer_in_its_details_and_nothing_in_its_reason() -> None:
    """A sender chooses the name, so rejections are counted by the reason alone."""
    raw = encode(identity("stranger").sign(Kind.HOLD, hold(reason="the secret text")))
    with pytest.raises(Untrusted) as caught:
        VERIFIER.hold(raw)
    assert caught.value.reason == "the signer is not on the roster"
    assert str(caught.value) == "the signer is not on the roster: stranger"


def test_a_signer_that_is_not_a_name_is_in_no_text() -> None:
    statement = identity("nobody").sign(Kind.HOLD, hold())
    raw = encode(statement).replace(b"\xa6nobody", b"\xa6NO.BOD")
    assert raw != encode(statement)
    with pytest.raises(Untrusted) as caught:
        VERIFIER.hold(raw)
    assert str(caught.value) == caught.value.reason == "not a signed statement"


@pytest.mark.parametrize(
    "change",
    [
        {"id": b"j" * 16},
        {"salt": b"j" * 16},
        {"scope": "link"},
        {"target": "globex"},
        {"origin": "us"},
        {"issued_ms": 6},
        {"reason": "another"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_hold_has_the_id_of_its_content(change: dict[str, Any]) -> None:
    changed = Hold(**(dict(hold()) | change))
    with pytest.raises(Untrusted, match="id"):
        VERIFIER.hold(encode(identity("security").sign(Kind.HOLD, changed)))


def test_the_longest_reason_can_be_lifted() -> None:
    longest = hold(reason="\U0001f511" * 2048)
    raw = encode(identity("security").sign(Kind.LIFT, lift(longest, "security")))
    assert VERIFIER.lift(raw).held.hold == longest


def test_what_is_verified_comes_with_its_bytes_and_issuer() -> None:
    raw = encode(identity("security").sign(Kind.HOLD, hold()))
    assert VERIFIER.hold_or_lift(raw) == VerifiedHold(hold(), "security", raw)
    lifted = lift(hold(), "security")
    raw_lift = encode(identity("security").sign(Kind.LIFT, lifted))
    held = VerifiedHold(hold(), "security", lifted.hold)
    assert VERIFIER.hold_or_lift(raw_lift) == VerifiedLift(lifted, held, "security", raw_lift)


def test_an_admin_request_comes_with_its_operators_roles() -> None:
    for name, roles in OPERATORS.items():
        raw = encode(identity(name).sign(Kind.ADMIN, REQUEST))
        assert VERIFIER.admin(raw) == (REQUEST, name, frozenset(roles))


@pytest.mark.parametrize("caller", EVERYBODY)
@pytest.mark.parametrize("region", ["eu", "us", "mars"])
def test_tickets(caller: str, region: str) -> None:
    message = b"the bytes of a ticket"
    signature = identity(caller).sign_raw(message)
    if INSTANCES.get(caller) == (Role.GATEWAY, region):
        assert VERIFIER.ticket(caller, region, signature, message).instance == caller
        with pytest.raises(Untrusted):
            VERIFIER.ticket(caller, region, signature, message + b"!")
        with pytest.raises(Untrusted):
            VERIFIER.ticket(caller, region, identity("gw-us-2").sign_raw(message), message)
    else:
        with pytest.raises(Untrusted):
            VERIFIER.ticket(caller, region, signature, message)


@pytest.mark.parametrize(
    ("grants", "tenant", "service", "allowed"),
    [
        ([], "acme", "payroll", False),
        ([("acme", "payroll")], "acme", "payroll", True),
        ([("acme", "payroll")], "acme", "payrolls", False),
        ([("acme", "payroll")], "acme2", "payroll", False),
        ([("acme", "*")], "acme", "anything", True),
        ([("*", "payroll")], "anybody", "payroll", True),
        ([("*", "payroll")], "anybody", "billing", False),
        ([("*", "*")], "anybody", "anything", True),
        ([("acme", "a"), ("globex", "b")], "acme", "b", False),
    ],
)
def test_grants(grants: list[tuple[str, str]], tenant: str, service: str, *, allowed: bool) -> None:
    entry = Instance(
        instance="gw-eu",
        role=Role.GATEWAY,
        region="eu",
        public_key=bytes(32),
        grants=[Grant(tenant=t, service=s) for t, s in grants],
    )
    assert may_ask(entry, tenant, service) is allowed


def test_regions() -> None:
    assert VERIFIER.regions == ["eu", "us"]
    with pytest.raises(Untrusted):
        VERIFIER.instance("stranger")


def test_a_trim_counts_each_auditor_once_and_nobody_who_says_less_or_else() -> None:
    def head(signer: str, **changes: object) -> bytes:
        body = STREAM_HEAD.model_copy(update=changes)
        return encode(identity(signer).sign(Kind.STREAM_HEAD, body))

    good = head("aud-eu")
    heads = [
        good,
        head("aud-eu", through=128),
        head("aud-eu", through=63),
        head("aud-eu", region="us"),
        head("aud-eu", created=2),
        head("core-eu", auditor="core-eu"),
        b"rubbish",
    ]

    def counted(*some: bytes) -> list[int]:
        raw = encode(identity("core-eu").sign(Kind.TRIM, trim("eu", *some)))
        return [found.through for found in VERIFIER.trim(raw).heads]

    assert counted(*heads) == [64]
    assert counted(*heads[1:]) == [128]
    assert counted(*heads[2:]) == []
