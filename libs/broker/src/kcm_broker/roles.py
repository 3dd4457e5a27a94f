"""Roles and accounts, and the form of a role's rights.

Each role has a tree of inboxes, ``_INBOX.<role>.<instance or user key>.>``. A client receives from
its own place in the tree alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from kcm_broker.claims import APPLICATION_VERBS, EMBEDDED_VERBS, GRANT_TAG

GRANT: Final = f"{{{{tag({GRANT_TAG})}}}}"
"""The piece ``<verb>.<tenant>.<service>`` of a subject, once for each grant of a user."""

SUBJECT: Final = "{{subject()}}"
"""The user's own public key, which no signer can forge."""

NAME: Final = "{{name()}}"
"""The user's name, which ``claims`` checks. No application gets the name of an instance."""


class Account(StrEnum):
    """The accounts of a region, and the region's account on the backbone."""

    REGION = "region"
    """Requests, the control stream, the audit stream and the registry."""
    CONTROL = "control"
    """Holds, receipts and pulls, linked to the other regions."""
    VAULT = "vault"
    """The stream of wrapped keys."""
    SYSTEM = "system"
    """The servers' own account."""
    BACKBONE = "backbone"
    """On the backbone, where each region has one account."""


class Role(StrEnum):
    """The kinds of client."""

    CORE = "core"
    GATEWAY = "gateway"
    AUDITOR = "auditor"
    APPLICATION = "application"
    PLAIN = "plain"
    """An application without a key, which the Gateways serve in clear."""
    EMBEDDED = "embedded"
    """An application with a Gateway inside."""
    OPERATOR = "operator"
    PROVISIONER = "provisioner"
    LEAF = "leaf"
    """A region's broker, as a leaf node of the backbone."""
    PUSHER = "pusher"
    """The tool that brings account tokens to the nodes."""


SPOKEN: Final = ("hold", "receipt", "probe")
"""What a region broadcasts across regions. ``probe`` serves to test and measure a link."""

INSTANCE_ROLES: Final = frozenset({Role.CORE, Role.GATEWAY, Role.AUDITOR})
"""The roles that have instances, with a signing key each."""

GRANT_VERBS: Final[Mapping[Role, frozenset[str]]] = {
    Role.APPLICATION: APPLICATION_VERBS,
    Role.PLAIN: APPLICATION_VERBS,
    Role.EMBEDDED: EMBEDDED_VERBS,
}
"""The verbs that a grant of a user of this role may have; the other roles have no grants."""


@dataclass(frozen=True, slots=True)
class Rights:
    """The subjects that a role may publish and subscribe, and how it connects."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    connection: str = "STANDARD"

    def template(self) -> dict[str, Any]:
        """Return the template of a signing key, as it is in an account's token.

        An absent list would allow everything, so an empty one becomes a denial of everything.
        """
        return {
            "pub": _listed(self.publish),
            "sub": _listed(self.subscribe),
            "subs": -1,
            "data": -1,
            "payload": -1,
            "allowed_connection_types": [self.connection],
        }


def _listed(entries: tuple[str, ...]) -> dict[str, list[str]]:
    return {"allow": sorted(entries)} if entries else {"deny": [">"]}


def inbox_prefix(role: Role, own: str) -> str:
    """Return the place of a client's inboxes: ``own`` is its instance, or its public key.

    The client library takes it as ``inbox_prefix``.
    """
    return f"_INBOX.{role}.{own}"


def own_inbox(role: Role, own: str) -> str:
    """Return the inboxes of one client."""
    return f"{inbox_prefix(role, own)}.>"


def inboxes(*roles: Role) -> tuple[str, ...]:
    """Return the inboxes of all clients of these roles, for the answers that they get."""
    return tuple(f"_INBOX.{role}.>" for role in roles)
