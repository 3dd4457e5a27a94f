"""The instances and operators of a deployment."""

from __future__ import annotations

from dataclasses import dataclass

from kcm_schemas.roster import OperatorRole, Role


@dataclass(frozen=True, slots=True)
class Member:
    """A planned instance, named by role, region and number.

    A Gateway with an ``application`` is part of a process of that application.
    """

    role: Role
    region: str
    number: int
    application: str | None = None

    @property
    def name(self) -> str:
        """The name, as in ``core-eu-de-1``."""
        return f"{self.role.value}-{self.region}-{self.number}"


@dataclass(frozen=True, slots=True)
class Person:
    """A planned operator: the name and the roles on the roster."""

    name: str
    roles: tuple[OperatorRole, ...]
