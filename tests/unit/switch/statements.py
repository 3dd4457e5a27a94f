"""A system's roster and keys, and the statements that its operators sign."""

from __future__ import annotations

import itertools
from typing import Any, Final

from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.control import Hold
from kcm_schemas.registry import Link, Tenant
from kcm_schemas.roster import Grant, Instance, Operator, OperatorRole, Region, Role, Roster
from kcm_schemas.signed import Kind
from kcm_trust.statements import lift
from kcm_trust.verify import Verifier, hold_id

from tests.vectors.families.messages import identity

ID: Final = b"i" * 16
REGIONS: Final = ("ap", "eu", "us")
URI: Final = "softkey:/keys/acme"
LINK: Final = Link(link="acme-root", revision=1, uri=URI, model="byok")

_salts = itertools.count(1)


def roster() -> Roster:
    names = [
        *((f"core-{region}-{n}", Role.CORE, region) for region in REGIONS for n in (1, 2, 3)),
        *((f"gw-{region}-{n}", Role.GATEWAY, region) for region in REGIONS for n in (1, 2)),
    ]
    return Roster(
        system="test",
        version=1,
        issued_ms=0,
        instances=[
            Instance(
                instance=name,
                role=role,
                region=region,
                public_key=identity(name).public,
                grants=[Grant(tenant="*", service="*")] if role is Role.GATEWAY else [],
                application="engine" if role is Role.GATEWAY else None,
            )
            for name, role, region in names
        ],
        operators=[
            Operator(
                operator=name,
                roles=[OperatorRole.SECURITY],
                public_key=identity(name).public,
            )
            for name in ("security", "security-2")
        ],
        regions=[
            Region(
                region=region,
                seal_key_id=ID,
            )
            for region in REGIONS
        ],
    )


VERIFIER: Final = Verifier(roster())


def tenant(name: str = "acme", **changes: Any) -> Tenant:
    fields: dict[str, Any] = {
        "link": "acme-root",
        "regions": ["eu"],
        "region_quorum": "all",
        "revision": 1,
    }
    return Tenant(tenant=name, **(fields | changes))


def hold(**changes: Any) -> Hold:
    """An operator's hold on a tenant, different from every other one."""
    fields: dict[str, Any] = {
        "salt": next(_salts).to_bytes(16, "big"),
        "scope": "tenant",
        "target": "acme",
        "cause": "operator",
        "origin": "eu",
        "issued_ms": 5,
        "reason": "drill",
    }
    draft = Hold(id=ID, **(fields | changes))
    return draft.model_copy(update={"id": hold_id(draft)})


def signed(kind: Kind, message: Any, signer: str = "security") -> bytes:
    return encode(identity(signer).sign(kind, message))


def held(one: Hold, signer: str = "security") -> bytes:
    return signed(Kind.HOLD, one, signer)


def lifted(one: Hold, signer: str = "security") -> bytes:
    return lift(identity(signer), held(one, signer), issued_ms=9, reason="over")


def at(one: Hold, region: str = "eu") -> str:
    """Where a hold is stored."""
    return subjects.control_hold(region, one.scope, one.id)
