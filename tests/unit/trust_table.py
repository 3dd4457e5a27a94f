"""The table of ``kcm_trust.verify`` as statements: how each is verified, and whose counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kcm_schemas.admin.kill_status import RegionStatus
from kcm_schemas.admin.requests import AdminReply, AdminRequest
from kcm_schemas.app import App, AppGrant
from kcm_schemas.auditor import AuditHead, StreamHead, Trim
from kcm_schemas.codec import Message
from kcm_schemas.codes import Code
from kcm_schemas.control import Cause, KeyUseAttestation, Lift, Lifts, PeerLease, PullRequest
from kcm_schemas.kill_result import Result
from kcm_schemas.l1 import L1State
from kcm_schemas.registry import Link, RegistryAnswer, RegistryQuestion, Service, Tenant
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind, Signed

from tests.unit.trust_rig import (
    ID,
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
    session_key,
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
    region="eu",
    noun="tenant",
    verb="put",
    instance="core-eu",
    incarnation=ID,
    request_id=ID,
    deadline_ms=1,
    payload=b"",
)
APP = App(
    app="shop",
    revision=1,
    previous=bytes(32),
    public_key=bytes((9,)) * 32,
    grants=[AppGrant(tenant="acme", service="payroll", verbs=["decrypt", "encrypt"])],
    regions=["eu"],
    not_before_ms=0,
    not_after_ms=1 << 40,
    plain=False,
    revoked=False,
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
    Row("app", Kind.APP, APP, V.app, ("admin",)),
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
    Row("session key", Kind.SESSION_KEY, session_key(), V.session_key, ("core-eu",)),
    Row("session key of us", Kind.SESSION_KEY, session_key(region="us"), V.session_key, ()),
    Row(
        "session key, Gateway", Kind.SESSION_KEY, session_key(role=Role.GATEWAY), V.session_key, ()
    ),
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


BELIEVED: Final = [row for row in ROWS if row.believed]


def believed(row: Row) -> Signed:
    return identity(row.believed[0]).sign(row.kind, row.body)
