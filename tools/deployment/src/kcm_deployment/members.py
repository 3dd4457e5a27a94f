"""The instances and operators of a deployment."""

from __future__ import annotations

from dataclasses import dataclass

from kcm_broker.claims import EMBEDDED_VERBS
from kcm_broker.roles import Role as BrokerRole
from kcm_schemas.roster import Grant, OperatorRole, Role


@dataclass(frozen=True, slots=True)
class Place:
    """A tenant's service; ``*`` is every one."""

    tenant: str = "*"
    service: str = "*"


@dataclass(frozen=True, slots=True)
class Member:
    """A planned instance.

    A Gateway with an ``application`` is part of a process of that application. ``places`` are those
    for which a Gateway may ask Cores.
    """

    role: Role
    region: str
    number: int
    application: str | None = None
    places: tuple[Place, ...] = (Place(),)

    @property
    def name(self) -> str:
        """The name, as in ``core-eu-de-1``, or ``shop-eu-de-1`` inside of an application."""
        return f"{self.application or self.role.value}-{self.region}-{self.number}"

    @property
    def broker_role(self) -> BrokerRole:
        """As what it enters the brokers."""
        return BrokerRole.EMBEDDED if self.application else BrokerRole(self.role.value)

    @property
    def grants(self) -> list[Grant]:
        """What the roster grants it; only a Gateway has grants."""
        if self.role is not Role.GATEWAY:
            return []
        return [Grant(tenant=one.tenant, service=one.service) for one in self.places]

    @property
    def broker_grants(self) -> tuple[str, ...]:
        """What the brokers grant an embedded one beside the rights of its role."""
        if self.application is None:
            return ()
        return tuple(
            f"{verb}.{one.tenant}.{one.service}"
            for verb in sorted(EMBEDDED_VERBS)
            for one in self.places
        )


@dataclass(frozen=True, slots=True)
class Person:
    """A planned operator: the name and the roles on the roster."""

    name: str
    roles: tuple[OperatorRole, ...]
