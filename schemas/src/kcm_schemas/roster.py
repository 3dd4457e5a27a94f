"""The roster: the members of the system, signed by the operator root.

Versions only rise; an instance remembers the highest that it has seen and rejects a lower one.

A signer that leaves is **retired** and stays on the roster. It can do nothing new. Of its lasting
statements (lifts, tenants, links, wrapped keys), exactly those still count that the root endorses
when it retires the signer. Its holds count in any case: a kill does not end because the operator
who placed it left. The removal of an entry from the roster revokes all of that, kills included: it
is for a key that an attacker has.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from kcm_schemas.codec import Message
from kcm_schemas.names import U32, U64, Digest, Id, Name

PublicKey = Annotated[bytes, Field(min_length=32, max_length=32)]
"""An Ed25519 public key."""


class Role(StrEnum):
    """The component of an instance."""

    CORE = "core"
    GATEWAY = "gateway"
    AUDITOR = "auditor"


class OperatorRole(StrEnum):
    """The orders that an operator may sign."""

    ADMIN = "admin"
    """Signs tenants, links and services."""
    SECURITY = "security"
    """Signs holds and lifts."""


class Grant(Message):
    """Tenants and services that an instance may ask for; ``*`` is all."""

    tenant: Name | Literal["*"]
    service: Name | Literal["*"]


class Retirement(Message):
    """The endorsement of a retired signer: ``count`` statements, whose digests the root has seen.

    ``endorsements`` is the SHA-256 over these digests (32 bytes each, in order). The list itself
    travels beside the roster. A retired signer never acts again: a new role needs a new key.
    """

    endorsements: Digest
    count: U32


class Instance(Message):
    """A Core, a Gateway or an Auditor.

    A Gateway with an ``application`` is *embedded*: it is part of a process of that application. It
    acts for the application alone and within the application's grants, so no other one has to ask.
    """

    instance: Name
    role: Annotated[Role, Field(strict=False)]
    region: Name
    public_key: PublicKey
    grants: list[Grant]
    application: Name | None = None
    retired: Retirement | None = None

    @model_validator(mode="after")
    def _of_a_gateway(self) -> Instance:
        if self.application is not None and self.role is not Role.GATEWAY:
            raise ValueError("only a Gateway is part of an application's process")
        return self


class Operator(Message):
    """A person, or a machine, that acts for the customer or for the operator."""

    operator: Name
    roles: list[Annotated[OperatorRole, Field(strict=False)]]
    public_key: PublicKey
    retired: Retirement | None = None


class Region(Message):
    """A region, and the name of the seal key that its Cores share."""

    region: Name
    seal_key_id: Id


class Roster(Message):
    """All members of the system, and nothing else is trusted."""

    system: Name
    version: U32
    issued_ms: U64
    instances: list[Instance]
    operators: list[Operator]
    regions: list[Region]
