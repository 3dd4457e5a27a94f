"""A roster with one of everybody, and statements for them to sign."""

from __future__ import annotations

from typing import Any, Final

from kcm_schemas import limits
from kcm_schemas.audit import AuditBatch
from kcm_schemas.codec import encode
from kcm_schemas.control import Hold, Lease, Lift, PullReply, Receipt
from kcm_schemas.registry import Accepted, RootKeys, ServiceKeys, WrappedRoot, WrappedService
from kcm_schemas.roster import Grant, Instance, Operator, OperatorRole, Region, Role, Roster
from kcm_schemas.session import SessionKey
from kcm_schemas.signed import Kind
from kcm_trust.verify import Verifier, hold_id

from tests.vectors.families.messages import identity

ID = b"i" * 16
WRAPPED = b"w" * 72

INSTANCES: Final = {
    "core-eu": (Role.CORE, "eu"),
    "core-eu-2": (Role.CORE, "eu"),
    "core-us": (Role.CORE, "us"),
    "gw-eu": (Role.GATEWAY, "eu"),
    "gw-us": (Role.GATEWAY, "us"),
    "aud-eu": (Role.AUDITOR, "eu"),
}
OPERATORS: Final = {
    "admin": (OperatorRole.ADMIN,),
    "security": (OperatorRole.SECURITY,),
    "nobody": (),
}
STRANGERS: Final = ("stranger", "root")
EVERYBODY: Final = (*INSTANCES, *OPERATORS, *STRANGERS)


def roster() -> Roster:
    return Roster(
        system="test",
        version=3,
        issued_ms=0,
        instances=[
            Instance(
                instance=name,
                role=role,
                region=region,
                public_key=identity(name).public,
                grants=[Grant(tenant="acme", service="*")] if role is Role.GATEWAY else [],
                application="engine" if role is Role.GATEWAY else None,
            )
            for name, (role, region) in INSTANCES.items()
        ],
        operators=[
            Operator(operator=name, roles=list(roles), public_key=identity(name).public)
            for name, roles in OPERATORS.items()
        ],
        regions=[Region(region=region, seal_key_id=ID) for region in ("eu", "us")],
    )


VERIFIER: Final = Verifier(roster())


def hold(cause: Any = "operator", origin: str = "eu", **changes: Any) -> Hold:
    fields: dict[str, Any] = {
        "salt": ID,
        "scope": "link" if cause == "l1" else "tenant",
        "target": "acme",
        "cause": cause,
        "origin": origin,
        "issued_ms": 5,
        "reason": "drill",
    }
    draft = Hold(id=ID, **(fields | changes))
    return Hold(**(dict(draft) | {"id": hold_id(draft)}))


def lift(of: Hold, issuer: str) -> Lift:
    embedded = encode(identity(issuer).sign(Kind.HOLD, of))
    return Lift(hold=embedded, issued_ms=6, reason="over")


def root_keys(region: str) -> RootKeys:
    version = WrappedRoot(
        version=1,
        seal_key_id=ID,
        link="acme-root",
        link_revision=1,
        blob=WRAPPED,
        mechanism="m",
        key_version="1",
        principal="p",
        canary=WRAPPED,
        canary_digest=bytes(32),
    )
    return RootKeys(tenant="acme", region=region, revision=1, current=1, versions=[version])


def service_keys(region: str) -> ServiceKeys:
    version = WrappedService(version=1, l2_version=1, state="active", blob=WRAPPED)
    fields: dict[str, Any] = {"tenant": "acme", "region": region, "service": "payroll"}
    return ServiceKeys(**fields, revision=1, current=1, versions=[version])


def accepted(region: str) -> Accepted:
    return Accepted(statement=bytes(32), region=region, roster=3)


def receipt(who: str, role: Role, region: str) -> Receipt:
    fields: dict[str, Any] = {"hold_id": ID, "instance": who, "incarnation": ID, "role": role}
    return Receipt(**fields, region=region, keys=1, purge_us=2, unkept="", reached=bytes(32))


def lease(who: str, role: Role, region: str) -> Lease:
    fields: dict[str, Any] = {"instance": who, "incarnation": ID, "role": role, "region": region}
    return Lease(
        **fields,
        nonce=ID,
        first=0,
        lease_ms=10_000,
        holds=bytes(32),
        registry=[bytes(16)] * 16,
        roster=1,
        ended=False,
    )


def pull_reply(region: str) -> PullReply:
    fields: dict[str, Any] = {"region": region, "nonce": ID}
    return PullReply(
        **fields,
        roster=1,
        same=False,
        more=False,
        position=9,
        durable_at=0,
        held_ms=0,
        watched_ms=0,
        reached=bytes(32),
        settled=True,
        lifted=False,
        holds=[],
        incarnations=[],
    )


def batch(who: str, role: Role, region: str) -> AuditBatch:
    fields: dict[str, Any] = {"emitter": who, "incarnation": ID, "role": role, "region": region}
    return AuditBatch(**fields, first=1, previous=bytes(32), events=[b"event"])


def session_key(name: str = "core-eu", role: Role = Role.CORE, region: str = "eu") -> SessionKey:
    """What an instance states of its key; nothing opens with it."""
    return SessionKey(
        instance=name,
        role=role,
        region=region,
        incarnation=ID,
        key_id=ID,
        suite="mlkem768-x25519",
        public=bytes(limits.HPKE_PUBLIC_SIZE),
        issued_ms=1,
        valid_ms=1,
    )
