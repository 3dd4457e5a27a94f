"""The named values of log lines about holds, lift pages and entries of the registry.

Use them only for what was verified, or for a subject that was parsed: each name passed the grammar.
"""

from __future__ import annotations

from typing import TypedDict

from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.lift_pages import Place
from kcm_killswitch.model.registry_objects import Key


class Target(TypedDict, total=False):
    """A hold and its target, or an entry of the registry."""

    hold: bytes
    tenant: str
    service: str
    link: str
    app: str
    region: str
    instance: str


class PageName(TypedDict):
    """A signer's lift page, and the region whose holds it ends."""

    signer: str
    region: str


def of_hold(state: HoldState) -> Target:
    """Name a hold by its id and its target."""
    hold = state.hold
    match hold.scope:
        case "tenant":
            return Target(hold=hold.id, tenant=hold.target)
        case "link":
            return Target(hold=hold.id, link=hold.target)
        case "region":
            return Target(hold=hold.id, region=hold.target)
        case "app":
            return Target(hold=hold.id, app=hold.target)
        case "instance":
            return Target(hold=hold.id, instance=hold.target)


def of_page(place: Place) -> PageName:
    """Name a lift page by its signer and origin."""
    return PageName(signer=place.signer, region=place.origin)


def of_object(key: Key) -> Target:
    """Name an object of the registry."""
    noun, name, *service = key
    if noun == "link":
        return Target(link=name)
    if noun == "app":
        return Target(app=name)
    return Target(tenant=name, service=service[0]) if service else Target(tenant=name)
