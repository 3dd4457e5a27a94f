"""Every row of the table in ``kcm_trust.verify``: who is believed, and everybody who is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest
from kcm_schemas.admin.kill_status import RegionStatus
from kcm_schemas.admin.requests import AdminReply, AdminRequest
from kcm_schemas.auditor import AuditHead, StreamHead, Trim
from kcm_schemas.codec import Message, encode
from kcm_schemas.codes import Code
from kcm_schemas.control import Cause, Hold, KeyUseAttestation, Lift, Lifts, PeerLease, PullRequest
from kcm_schemas.kill_result import Result
from kcm_schemas.l1 import L1State
from kcm_schemas.registry import Link, RegistryAnswer, RegistryQuestion, Service, Tenant
from kcm_schemas.roster import Grant, Instance, Role
from kcm_schemas.signed import Kind, Signature, Signed
from kcm_trust.verify import Untrusted, VerifiedHold, VerifiedLift, may_ask

from tests.unit.trust_rig import (
    EVERYBODY,
    ID,
    INSTANCES,
    OPERATORS,
    VERIFIER,
    accepted,
    batch,
    hold,
    lease,
    lift,
    pull_reply,
    receipt,
    root_keys,
    service_keys,
)
from tests.vectors.families.messages import identity


@dataclass(frozen=True)
class Row:
    """One statement: how it is verified and who of everybody is believed."""

    name: str
    kind: Kind
    body: Message
    verify: Callable[[bytes], object]
    believed: tuple[str, ...]


CORES_EU: Final = ("core-eu", "core-eu-2")
REQUEST = AdminRequest(
    region="eu", noun="tenant", verb="put", request_id=ID, deadline_ms=1, payload=b""
)
REPLY = AdminReply(request=bytes(32), code=Code.OK, detail="", payload=b"")
STREAM_HEAD = StreamHead(
    auditor="aud-eu", region="eu", created=1, through=64, digest=bytes(32), time_ms=1
)


def lifts(cause: Cause, origin: str) -> Lifts:
    return Lifts(cause=cause, origin=origin, prefix=ID[0], issued_ms=1, ids=ID)


def trim(region: str, *heads: bytes, through: int = 64) -> Trim:
    return Trim(
        region=region, created=1, through=through, digest=bytes(32), issued_ms=1,
        heads=list(heads) or [b"any"],
    )  # fmt: skip


HEAD = AuditHead(auditor="aud-eu", seq=1, head=bytes(32), time_ms=1)
KEY_USE = KeyUseAttestation(
    region="eu", link="l", link_revision=1, key_version="1", principal="me",
    state=L1State.ENABLED, position=1, nonce=ID,
)  # fmt: skip
V = VERIFIER
RESULT: Final = Result(
    hold_id=b"i" * 16, region="eu", instance="core-eu", heard_ms=1, concluded_ms=2, roster=3,
    regions=[RegionStatus(region="eu", durable_at=1, how="durable", left_ms=0)],
    incarnations=[], receipts=[], left_out=0,
)  # fmt: skip
ROWS: Final = [
    Row(
        "tenant",
        Kind.TENANT,
        Tenant(tenant="acme", revision=1, link="l", regions=["eu"], region_quorum="all"),
        V.tenant,
        ("admin",),
    ),
    Row("link", Kind.LINK, Link(link="l", revision=1, uri="u", model="byok"), V.link, ("admin",)),
    Row(
        "service",
        Kind.SERVICE,
        Service(tenant="acme", service="payroll", revision=1),
        V.service,
        ("admin",),
    ),
    Row("accepted", Kind.ACCEPTED, accepted("eu"), V.accepted, CORES_EU),
    Row("accepted in us", Kind.ACCEPTED, accepted("us"), V.accepted, ("core-us",)),
    Row("root keys", Kind.ROOT_KEYS, root_keys("eu"), V.root_keys, CORES_EU),
    Row("root keys of us", Kind.ROOT_KEYS, root_keys("us"), V.root_keys, ("core-us",)),
    Row("service keys", Kind.SERVICE_KEYS, service_keys("eu"), V.service_keys, CORES_EU),
    Row("operator's hold", Kind.HOLD, hold(), V.hold, ("security",)),
    Row("operator's hold, either", Kind.HOLD, hold(), V.hold_or_lift, ("security",)),
    Row("l1's hold", Kind.HOLD, hold("l1"), V.hold, CORES_EU),
    Row("l1's hold of us", Kind.HOLD, hold("l1", "us"), V.hold, ("core-us",)),
    Row("l1's hold of a tenant", Kind.HOLD, hold("l1", scope="tenant"), V.hold, ()),
    Row("l1's hold of a region", Kind.HOLD, hold("l1", scope="region", target="us"), V.hold, ()),
    Row("a region", Kind.HOLD, hold(scope="region", target="us"), V.hold, ("security",)),
    Row("a region of nowhere", Kind.HOLD, hold(scope="region", target="mars"), V.hold, ()),
    Row("l1's hold of nowhere", Kind.HOLD, hold("l1", "mars"), V.hold, ()),
    Row("lift", Kind.LIFT, lift(hold(), "security"), V.lift, ("security",)),
    Row("lift, either", Kind.LIFT, lift(hold(), "security"), V.hold_or_lift, ("security",)),
    Row("l1's lift", Kind.LIFT, lift(hold("l1"), "core-eu"), V.lift, (*CORES_EU, "security")),
    Row("lift of a stranger's hold", Kind.LIFT, lift(hold(), "stranger"), V.lift, ()),
    Row("lift of an admin's hold", Kind.LIFT, lift(hold(), "admin"), V.lift, ()),
    Row("lift of another's hold", Kind.LIFT, lift(hold("l1"), "core-us"), V.lift, ()),
    Row(
        "l1's of us", Kind.LIFT, lift(hold("l1", "us"), "core-us"), V.lift, ("core-us", "security")
    ),
    Row("lift of nothing", Kind.LIFT, Lift(hold=b"", issued_ms=1, reason=""), V.lift, ()),
    Row("lifts", Kind.LIFTS, lifts("l1", "eu"), V.lifts, CORES_EU),
    Row("lifts of us", Kind.LIFTS, lifts("l1", "us"), V.lifts, ("core-us",)),
    Row("operators' lifts", Kind.LIFTS, lifts("operator", "eu"), V.lifts, ()),
    Row("lifts of nowhere", Kind.LIFTS, lifts("l1", "mars"), V.lifts, ()),
    Row("receipt", Kind.RECEIPT, receipt("gw-eu", Role.GATEWAY, "eu"), V.receipt, ("gw-eu",)),
    Row("result", Kind.RESULT, RESULT, V.result, (*CORES_EU, "core-us")),
    Row("another role", Kind.RECEIPT, receipt("gw-eu", Role.CORE, "eu"), V.receipt, ()),
    Row("another region", Kind.RECEIPT, receipt("gw-eu", Role.GATEWAY, "us"), V.receipt, ()),
    Row("lease", Kind.LEASE, lease("core-eu", Role.CORE, "eu"), V.lease, ("core-eu",)),
    Row("lease of another role", Kind.LEASE, lease("core-eu", Role.GATEWAY, "eu"), V.lease, ()),
    Row("lease elsewhere", Kind.LEASE, lease("core-eu", Role.CORE, "us"), V.lease, ()),
    Row(
        "peer-lease",
        Kind.PEER_LEASE,
        PeerLease(region="eu", other="us", position=1, nonce=ID, stored=0, hold=ID, roster=1),
        V.peer_lease,
        CORES_EU,
    ),
    Row("key-use", Kind.KEY_USE, KEY_USE, V.key_use, CORES_EU),
    Row(
        "pull",
        Kind.PULL,
        PullRequest(region="us", nonce=ID, after=ID, parts=b"", pages=b"", hold_id=ID),
        V.pull,
        ("core-us",),
    ),
    Row("pull reply", Kind.PULL_REPLY, pull_reply("eu"), V.pull_reply, CORES_EU),
    Row(
        "registry question",
        Kind.REGISTRY_QUESTION,
        RegistryQuestion(region="eu", nonce=ID),
        V.registry_question,
        CORES_EU,
    ),
    Row(
        "registry answer",
        Kind.REGISTRY_ANSWER,
        RegistryAnswer(region="eu", nonce=ID, digest=bytes(32)),
        V.registry_answer,
        CORES_EU,
    ),
    Row("admin", Kind.ADMIN, REQUEST, V.admin, tuple(OPERATORS)),
    Row("admin reply", Kind.ADMIN_REPLY, REPLY, V.admin_reply, (*CORES_EU, "core-us")),
    Row(
        "auditor's reply",
        Kind.ADMIN_REPLY,
        REPLY,
        lambda raw: V.admin_reply(raw, Role.AUDITOR),
        ("aud-eu",),
    ),
    Row("audit", Kind.AUDIT, batch("gw-eu", Role.GATEWAY, "eu"), V.audit, ("gw-eu",)),
    Row("audit head", Kind.AUDIT_HEAD, HEAD, V.audit_head, ("aud-eu",)),
    Row("stream head", Kind.STREAM_HEAD, STREAM_HEAD, V.stream_head, ("aud-eu",)),
    Row("trim", Kind.TRIM, trim("eu"), V.trim, CORES_EU),
    Row("trim of us", Kind.TRIM, trim("us"), V.trim, ("core-us",)),
    Row("audit, another role", Kind.AUDIT, batch("gw-eu", Role.CORE, "eu"), V.audit, ()),
]


def ids(row: Row) -> str:
    return row.name


@pytest.mark.parametrize("signer", EVERYBODY)
@pytest.mark.parametrize("row", ROWS, ids=ids)
def test_the_table(row: Row, signer: str) -> None:
    raw = encode(identity(signer).sign(row.kind, row.body))
    if signer in row.believed:
        assert row.verify(raw)
    else:
        with pytest.raises(Untrusted):
            row.verify(raw)


BELIEVED: Final = [row for row in ROWS if row.believed]


def believed(row: Row) -> Signed:
    return identity(row.believed[0]).sign(row.kind, row.body)


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
