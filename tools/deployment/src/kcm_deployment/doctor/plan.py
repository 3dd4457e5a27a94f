"""What is to be checked: files and addresses of brokers, from a configuration or a context."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from kcm_broker.roles import Account, Role
from kcm_runtime.config import BusAddress

from kcm_deployment.doctor.finding import Finding


class Kind(StrEnum):
    """What a path is for."""

    SECRET = "secret"  # noqa: S105 - a kind of file
    """Only its owner may read it."""
    CREDENTIALS = "credentials"
    """A secret with the token of a broker's user."""
    CERTIFICATE = "certificate"
    PUBLIC = "public"
    """Others may read it, and must not write it."""
    STATE = "state"
    """A directory in which an instance writes."""


@dataclass(frozen=True, slots=True)
class Named:
    """A path, what it is for, and where the configuration names it."""

    key: str
    path: Path
    kind: Kind


@dataclass(frozen=True, slots=True)
class Address:
    """One login at a broker. ``region`` is empty where the configuration does not name it."""

    name: str
    bus: BusAddress
    region: str
    account: Account
    streams: tuple[str, ...] = ()
    """The streams whose state this login may ask for."""

    @property
    def role(self) -> Role | None:
        """The role by the place of its inboxes; ``None`` if it has none."""
        parts = self.bus.inbox.split(".")
        return Role(parts[1]) if len(parts) in {2, 3} and parts[1] in set(Role) else None


@dataclass(frozen=True, slots=True)
class Plan:
    """The files and addresses of one configuration, and what was wrong with it already."""

    name: str
    files: tuple[Named, ...] = ()
    addresses: tuple[Address, ...] = ()
    findings: tuple[Finding, ...] = field(default=())
