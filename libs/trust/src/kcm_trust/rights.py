"""The right to sign a kind of statement, which is checked before a signature is verified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from kcm_schemas.roster import Instance, Operator, OperatorRole, Role

from kcm_trust.envelopes import Unknown, Untrusted

Entry = Instance | Operator


@dataclass(frozen=True, slots=True)
class Right:
    """The right to sign a kind of statement; ``who`` describes the entries that have it."""

    who: str
    has: Callable[[Entry], bool]

    def check(self, entry: Entry | None, signer: str) -> Entry:
        """Return the roster's entry of ``signer``; raises ``Untrusted``."""
        if entry is None:
            raise Unknown("the signer is not on the roster", signer)
        if not self.has(entry):
            raise Untrusted(f"the signer is not {self.who}", signer)
        return entry


def has_role(entry: Entry, role: Role) -> bool:
    """Whether an entry is an instance with this role."""
    return isinstance(entry, Instance) and entry.role is role


def is_operator(entry: Entry, role: OperatorRole) -> bool:
    """Whether an entry is an operator with this role."""
    return isinstance(entry, Operator) and role in entry.roles


def is_security(entry: Entry) -> bool:
    """Whether an entry may place holds, and lift any hold."""
    return is_operator(entry, OperatorRole.SECURITY)


ROLE: Final = {
    role: Right(f"an instance with role {role.value}", partial(has_role, role=role))
    for role in Role
}
CORE: Final = ROLE[Role.CORE]
INSTANCE: Final = Right("an instance", lambda entry: isinstance(entry, Instance))
OPERATOR: Final = Right("an operator", lambda entry: isinstance(entry, Operator))
ADMIN: Final = Right("an operator with role admin", partial(is_operator, role=OperatorRole.ADMIN))
MAY_GRANT: Final = Right(
    "an operator with role admin or security",
    lambda entry: is_security(entry) or is_operator(entry, OperatorRole.ADMIN),
)
MAY_HOLD: Final = Right(
    "an operator with role security or a Core",
    lambda entry: is_security(entry) or has_role(entry, Role.CORE),
)


def one_of(signers: list[Entry]) -> Entry:
    """Return the signer of a statement that must have exactly one; raises ``Untrusted``."""
    if len(signers) != 1:
        raise Untrusted("this kind of statement has one signer", f"not {len(signers)}")
    return signers[0]


def itself(signers: list[Entry], name: str, role: Role, region: str) -> None:
    """Raise ``Untrusted`` unless the one signer is the instance with this name, role and region."""
    entry = one_of(signers)
    if not isinstance(entry, Instance):
        raise Untrusted("the signer is not an instance", entry.operator)
    if (entry.instance, entry.role, entry.region) != (name, role, region):
        raise Untrusted(
            "the signer is not the instance named",
            f"signer {entry.instance} ({entry.role.value}, {entry.region}), named {name}"
            f" ({role.value}, {region})",
        )
