"""Who may sign a kind of statement at all: asked before a signature is checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from kcm_schemas.roster import Instance, Operator, OperatorRole, Role

from kcm_trust.envelopes import Untrusted

Entry = Instance | Operator


@dataclass(frozen=True, slots=True)
class Right:
    """Who may sign a kind of statement at all: asked before a signature is checked."""

    who: str
    has: Callable[[Entry], bool]

    def check(self, entry: Entry | None) -> Entry:
        """The entry; raises ``Untrusted``."""
        if entry is None:
            raise Untrusted("the signer is not on the roster")
        if not self.has(entry):
            raise Untrusted(f"the signer is not {self.who}")
        return entry


def has_role(entry: Entry, role: Role) -> bool:
    """Whether an entry is an instance with this role."""
    return isinstance(entry, Instance) and entry.role is role


def is_operator(entry: Entry, role: OperatorRole) -> bool:
    """Whether an entry is an operator with this role."""
    return isinstance(entry, Operator) and role in entry.roles


def is_security(entry: Entry) -> bool:
    """Whether an entry may kill, and lift any hold."""
    return is_operator(entry, OperatorRole.SECURITY)


ROLE: Final = {
    role: Right(f"an instance with role {role.value}", partial(has_role, role=role))
    for role in Role
}
CORE: Final = ROLE[Role.CORE]
INSTANCE: Final = Right("an instance", lambda entry: isinstance(entry, Instance))
OPERATOR: Final = Right("an operator", lambda entry: isinstance(entry, Operator))
ADMIN: Final = Right("an operator with role admin", partial(is_operator, role=OperatorRole.ADMIN))
MAY_HOLD: Final = Right(
    "an operator with role security or a Core",
    lambda entry: is_security(entry) or has_role(entry, Role.CORE),
)


def one_of(signers: list[Entry]) -> Entry:
    """The signer of what one speaks for oneself alone."""
    if len(signers) != 1:
        raise Untrusted("this kind of statement has one signer")
    return signers[0]


def itself(signers: list[Entry], name: str, role: Role, region: str) -> None:
    """Raise ``Untrusted`` unless an instance speaks for itself alone."""
    entry = one_of(signers)
    if not isinstance(entry, Instance):
        raise Untrusted("the signer is no instance")
    if (entry.instance, entry.role, entry.region) != (name, role, region):
        raise Untrusted("the signer speaks for somebody else")
