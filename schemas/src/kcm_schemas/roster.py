"""The roster: who belongs to the system, signed by the operator root.

Versions only rise; an instance remembers the highest it has seen and refuses a lower one.

Who leaves is **retired** and stays on the roster: they can do nothing new, and of what they signed
to last (lifts, tenants, links, wrapped keys) exactly that goes on counting which the root lists as
it retires them. Their holds count in any case: a kill does not end because the operator who placed
it left. Taking an entry off the roster takes all of that back, kills included: that is for a key
that somebody else has.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from kcm_schemas.codec import Message
from kcm_schemas.names import U32, U64, Digest, Id, Name

PublicKey = Annotated[bytes, Field(min_length=32, max_length=32)]
"""An Ed25519 public key."""


class Role(StrEnum):
    """What an instance is."""

    CORE = "core"
    GATEWAY = "gateway"
    AUDITOR = "auditor"


class OperatorRole(StrEnum):
    """What a person may do."""

    ADMIN = "admin"
    """Tenants, links and services."""
    SECURITY = "security"
    """Kill and lift."""


class Grant(Message):
    """Tenants and services that an instance may ask for; ``*`` is all."""

    tenant: Name | Literal["*"]
    service: Name | Literal["*"]


class Retirement(Message):
    """What lasts of somebody who left: ``count`` statements, whose digests the root has seen.

    ``lasting`` is the SHA-256 over these digests (32 bytes each, in order). The list itself travels
    beside the roster. Who retired never acts again: a new role means a new key.
    """

    lasting: Digest
    count: U32


class Instance(Message):
    """A Core, a Gateway or an Auditor."""

    instance: Name
    role: Annotated[Role, Field(strict=False)]
    region: Name
    public_key: PublicKey
    grants: list[Grant]
    retired: Retirement | None = None


class Operator(Message):
    """A person or a machine that acts for the customer or the operator."""

    operator: Name
    roles: list[Annotated[OperatorRole, Field(strict=False)]]
    public_key: PublicKey
    retired: Retirement | None = None


class Region(Message):
    """A region's keys: the HPKE public key of its Cores and the name of its seal key."""

    region: Name
    hpke_key_id: Id
    hpke_suite: Literal["mlkem768-x25519"]
    hpke_public: bytes
    seal_key_id: Id


class Roster(Message):
    """Everybody that anybody may believe."""

    system: Name
    version: U32
    issued_ms: U64
    instances: list[Instance]
    operators: list[Operator]
    regions: list[Region]
