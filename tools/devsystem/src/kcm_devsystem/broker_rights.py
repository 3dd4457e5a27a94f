"""What the users of a region's broker may publish and subscribe: see ``kcm_broker.role_users``."""

from __future__ import annotations

from kcm_broker import role_users

from kcm_devsystem.brokers import Account, Permissions, Role, Rule, login_name


def permissions_of(region: str, role: Role, account: Account) -> Permissions | None:
    """Return a user's permissions; ``None`` for the visitor of tests, who may do anything."""
    if role is Role.VISITOR:
        return None
    found = role_users.user_rights(region, login_name(role, account))
    return Permissions(Rule(found.publish), Rule(found.subscribe))


def inbox(role: Role, name: str) -> str:
    """Return where a user receives replies; ``name`` is that of the instance or of the client."""
    return role_users.inbox(role.value, name)
