"""Subjects of encryption: from applications to Gateways, and from Gateways to Cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kcm_schemas.codes import Code, KcmError
from kcm_schemas.subjects import in_region, read


def gateway(region: str, operation: str, tenant: str, service: str) -> str:
    """App to Gateway, request/reply in a queue group."""
    return in_region(region, "gateway", operation, tenant, service)


def gateway_all(region: str, operation: str) -> str:
    """The subjects of one operation that every Gateway serves in a queue group.

    One for each operation: a broker also delivers ``gateway.a.b.c.d`` to a client that it lets
    subscribe ``gateway.*.*.*``, and that is a request to one Gateway.
    """
    return f"{in_region(region, 'gateway', operation)}.*.*"


def gateway_at(region: str, instance: str, operation: str, tenant: str, service: str) -> str:
    """App to one Gateway, request/reply within a session."""
    return in_region(region, "gateway", instance, operation, tenant, service)


def gateway_all_at(region: str, instance: str) -> str:
    """The subjects of sealed requests that one Gateway serves."""
    return f"{in_region(region, 'gateway', instance)}.*.*.*"


def gateway_session(region: str, instance: str, verb: str) -> str:
    """App to one Gateway, request/reply: the verbs are those of ``core_session``."""
    return in_region(region, "gateway", instance, verb)


def gateway_sessions(region: str, instance: str) -> str:
    """The subjects with which applications begin sessions at one Gateway."""
    return f"{in_region(region, 'gateway', instance)}.*"


def gateway_roster(region: str) -> str:
    """App to any Gateway, request/reply: an empty request for the roster in force, as signed."""
    return in_region(region, "gateway", "roster")


def core(region: str, instance: str, operation: str, tenant: str, service: str) -> str:
    """Gateway to one Core, request/reply within a session."""
    return in_region(region, "core", instance, operation, tenant, service)


def core_all(region: str, instance: str) -> str:
    """The subjects of sealed requests that one Core serves."""
    return f"{in_region(region, 'core', instance)}.*.*.*"


OPEN_APP: Final = "open-app"
"""The verb with which a Gateway opens a session at a Core for an application."""

OPEN_OPERATOR: Final = "open-operator"
"""The verb with which an operator opens a session at a Core."""

CARRIED: Final = "session"
"""The operation with which an application has a Gateway carry what begins a session at a Core: the
tenant of the subject is the Core, and its service is the verb."""


def core_session(region: str, instance: str, verb: str) -> str:
    """Caller to one Core, request/reply: ``key`` asks for its session key, ``open`` opens one.

    ``open-app`` opens one for an application, and ``open-operator`` one for an operator.
    """
    return in_region(region, "core", instance, verb)


def core_sessions(region: str, instance: str) -> str:
    """The subjects with which callers begin sessions at one Core."""
    return f"{in_region(region, 'core', instance)}.*"


@dataclass(frozen=True, slots=True)
class DataSubject:
    """The parts of a data request's subject."""

    operation: str
    tenant: str
    service: str


def read_data(subject: str) -> DataSubject:
    """Read ``kcm.v1.<region>.gateway.<operation>.<tenant>.<service>``; raises ``malformed``."""
    tokens = read(subject, 7)
    if tokens[3] != "gateway":
        raise KcmError(Code.MALFORMED, "not the subject of a data request")
    return DataSubject(*tokens[4:])


def read_core(subject: str) -> DataSubject:
    """Read the subject of a sealed request to a Core (``core``); raises ``malformed``."""
    tokens = read(subject, 8)
    if tokens[3] != "core":
        raise KcmError(Code.MALFORMED, "not the subject of a request to a Core")
    return DataSubject(*tokens[5:])


def read_gateway_at(subject: str) -> DataSubject:
    """Read the subject of a sealed request to a Gateway (``gateway_at``); raises ``malformed``."""
    tokens = read(subject, 8)
    if tokens[3] != "gateway":
        raise KcmError(Code.MALFORMED, "not the subject of a request to one Gateway")
    return DataSubject(*tokens[5:])


def read_core_session(subject: str) -> tuple[str, str]:
    """Read the Core and the verb of ``core_session``; raises ``malformed``."""
    tokens = read(subject, 6)
    if tokens[3] != "core":
        raise KcmError(Code.MALFORMED, "not the subject of a session with a Core")
    return tokens[4], tokens[5]


def read_session(subject: str) -> str:
    """Read the verb of ``core_session`` or ``gateway_session``; raises ``malformed``."""
    tokens = read(subject, 6)
    if tokens[3] not in ("core", "gateway"):
        raise KcmError(Code.MALFORMED, "not the subject of a session")
    return tokens[5]
