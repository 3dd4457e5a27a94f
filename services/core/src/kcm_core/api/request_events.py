"""The subject of an operator's request, for its audit event: copied from the request, unverified.

The caller signed the request, so the event states what that operator asked for, independent of the
outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kcm_runtime.audit.repeat_counter import What
from kcm_schemas.admin.apps import AppQuery
from kcm_schemas.admin.holds import HoldPrefix, HoldQuery, PreviewQuery
from kcm_schemas.admin.requests import AdminRequest, PutStatement
from kcm_schemas.admin.tenants import ServiceListQuery, TenantQuery, TenantShowQuery
from kcm_schemas.app import App
from kcm_schemas.audit import EventType
from kcm_schemas.codec import decode
from kcm_schemas.codes import KcmError
from kcm_schemas.control import Hold, Lift
from kcm_schemas.registry import Link, Service, Tenant
from kcm_schemas.signed import Kind, read_signed

_TYPES: Final = {one.value: one for one in EventType}


def type_of(request: AdminRequest) -> EventType:
    """The type of a request's event: the caller cannot choose it."""
    return _TYPES.get(f"admin.{request.noun}-{request.verb}", EventType.ADMIN_UNKNOWN)


def requested(request: AdminRequest) -> What:
    """The subject of a request; empty if the request does not name it or is not well formed."""
    try:
        return _requested(request)
    except KcmError:
        return {}


def ordered(request: AdminRequest) -> tuple[Hold, bool] | None:
    """Return the hold of an order, and whether the order lifts it; ``None`` if it is not one."""
    try:
        signed = read_signed(decode(PutStatement, request.payload).statement)
        if signed.kind is Kind.LIFT:
            held = read_signed(decode(Lift, signed.body).hold)
            return decode(Hold, held.body), True
        return (decode(Hold, signed.body), False) if signed.kind is Kind.HOLD else None
    except KcmError:
        return None


def _requested(request: AdminRequest) -> What:
    read = _READERS.get((request.noun, request.verb))
    if read is not None:
        return read(request.payload)
    if type_of(request) is EventType.ADMIN_UNKNOWN:
        return {"target": f"{request.noun} {request.verb}"}
    return {}


def _put(payload: bytes) -> What:
    return _statement(decode(PutStatement, payload).statement)


def _preview(payload: bytes) -> What:
    query = decode(PreviewQuery, payload)
    return {"target": f"{query.scope} {query.target}"}


_READERS: Final[dict[tuple[str, str], Callable[[bytes], What]]] = {
    **dict.fromkeys([(noun, "put") for noun in ("tenant", "link", "service", "app", "hold")], _put),
    ("tenant", "find"): lambda payload: {"tenant": decode(TenantQuery, payload).tenant},
    ("tenant", "show"): lambda payload: {"tenant": decode(TenantShowQuery, payload).tenant},
    ("service", "list"): lambda payload: {"tenant": decode(ServiceListQuery, payload).tenant},
    ("app", "show"): lambda payload: {"target": f"app {decode(AppQuery, payload).app}"},
    ("hold", "status"): lambda payload: {"hold": decode(HoldQuery, payload).hold_id},
    ("hold", "export"): lambda payload: {"hold": decode(HoldQuery, payload).hold_id},
    ("hold", "show"): lambda payload: {"target": f"hold {decode(HoldPrefix, payload).prefix}"},
    ("hold", "preview"): _preview,
}


def _statement(raw: bytes) -> What:
    signed = read_signed(raw)
    read = _STATEMENTS.get(signed.kind)
    return {} if read is None else read(signed.body)


def _service(body: bytes) -> What:
    service = decode(Service, body)
    return {"tenant": service.tenant, "service": service.service}


def _hold(body: bytes) -> What:
    hold = decode(Hold, body)
    return {"hold": hold.id, "target": f"{hold.scope} {hold.target}"}


_STATEMENTS: Final[dict[Kind, Callable[[bytes], What]]] = {
    Kind.TENANT: lambda body: {"tenant": decode(Tenant, body).tenant},
    Kind.LINK: lambda body: {"target": f"link {decode(Link, body).link}"},
    Kind.SERVICE: _service,
    Kind.APP: lambda body: {"target": f"app {decode(App, body).app}"},
    Kind.HOLD: _hold,
    Kind.LIFT: lambda body: _statement(decode(Lift, body).hold),
}
