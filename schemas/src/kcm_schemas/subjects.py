"""Subjects: the only place where one is spelled.

Tokens are ``[a-z0-9-]``, 1 to 63 characters, so no name can widen a subject.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import is_name

PREFIX: Final = "kcm.v1"
CTL: Final = f"{PREFIX}.ctl"
"""Everything that crosses regions lies below this."""


def _join(*tokens: str) -> str:
    for token in tokens:
        if not is_name(token):
            raise KcmError(Code.MALFORMED, "a name has 1 to 63 characters of a-z, 0-9 and -")
    return ".".join((PREFIX, *tokens))


def gateway(region: str, operation: str, tenant: str, service: str) -> str:
    """App to Gateway, request/reply in a queue group."""
    return _join(region, "gateway", operation, tenant, service)


def gateway_all(region: str) -> str:
    """What a Gateway listens to."""
    return f"{_join(region, 'gateway')}.*.*.*"


def core(region: str, operation: str, tenant: str, service: str) -> str:
    """Gateway to Core, request/reply in a queue group."""
    return _join(region, "core", operation, tenant, service)


def core_all(region: str) -> str:
    """What a Core listens to."""
    return f"{_join(region, 'core')}.*.*.*"


def admin(region: str, noun: str, verb: str) -> str:
    """Operator to Core, request/reply in a queue group."""
    return _join(region, "admin", noun, verb)


def admin_all(region: str) -> str:
    """What a Core listens to for operators."""
    return f"{_join(region, 'admin')}.*.*"


@dataclass(frozen=True, slots=True)
class DataSubject:
    """A data request's subject, read."""

    operation: str
    tenant: str
    service: str


def read_data(subject: str) -> DataSubject:
    """Read ``kcm.v1.<region>.<role>.<operation>.<tenant>.<service>``."""
    tokens = subject.split(".")
    if len(tokens) != 7 or not all(is_name(token) for token in tokens[4:]):
        raise KcmError(Code.MALFORMED, "the subject is not one of a data request")
    return DataSubject(*tokens[4:])


def read_admin(subject: str) -> tuple[str, str]:
    """Read noun and verb of ``kcm.v1.<region>.admin.<noun>.<verb>``."""
    tokens = subject.split(".")
    if len(tokens) != 6 or not all(is_name(token) for token in tokens[4:]):
        raise KcmError(Code.MALFORMED, "the subject is not one of an admin request")
    return tokens[4], tokens[5]


def control_all(region: str) -> str:
    """The region's control stream."""
    return f"{_join(region, 'control')}.>"


def control_hold(region: str, scope: str, hold_id: bytes) -> str:
    """One hold in the region's control stream, also when it is lifted."""
    return _join(region, "control", "hold", scope, hold_id.hex())


def control_holds(region: str) -> str:
    """Every hold of the region's control stream."""
    return f"{_join(region, 'control', 'hold')}.>"


def control_lease(region: str, instance: str, boot: bytes) -> str:
    """The lease record of one boot, written by that boot alone."""
    return _join(region, "control", "lease", instance, boot.hex())


def control_leases(region: str) -> str:
    """Every lease record of the region's control stream."""
    return f"{_join(region, 'control', 'lease')}.>"


def control_fence(region: str, other: str) -> str:
    """What this region knows of another one."""
    return _join(region, "control", "fence", other)


def broadcast_hold(origin: str, scope: str, hold_id: bytes) -> str:
    """A hold or a lift, to everybody in every region, not stored."""
    return _join("ctl", "hold", origin, scope, hold_id.hex())


def broadcast_holds() -> str:
    """All holds and lifts of all regions."""
    return f"{CTL}.hold.>"


def receipt(region: str, hold_id: bytes) -> str:
    """A boot's word that it purged, from its own region."""
    return _join("ctl", "receipt", region, hold_id.hex())


def receipts() -> str:
    """All receipts of all regions."""
    return f"{CTL}.receipt.>"


def pull(region: str) -> str:
    """Ask a region's Cores what they hold; request/reply across regions."""
    return _join("ctl", "pull", region)


def audit(region: str, emitter: str) -> str:
    """Audit events of one emitter."""
    return _join(region, "audit", emitter)


def audit_all(region: str) -> str:
    """Audit events of a region."""
    return f"{_join(region, 'audit')}.*"


CONTROL_STREAM: Final = "KCM_CONTROL"
AUDIT_STREAM: Final = "KCM_AUDIT"
KEYS_BUCKET: Final = "kcm-keys"
"""Wrapped L2 and L3, and which version is current."""
REGISTRY_BUCKET: Final = "kcm-registry"
"""Tenants, links and services as their operators signed them."""
