"""The names of a lift page's place: in a subject of the stream, and on a Core's disk."""

from __future__ import annotations

from hashlib import sha256
from typing import cast

from kcm_schemas import limits, subjects
from kcm_schemas.control import Cause
from kcm_schemas.labels import LIFT_PAGE, ctx

from kcm_killswitch.model.lift_pages import Place


def place_of(subject: str) -> Place | None:
    """The place of a page, from its subject; ``None`` if the subject is not one of a page."""
    named = subjects.read_lifts(subject)
    if named is None:
        return None
    cause, origin, signer, prefix = named
    return Place(cast("Cause", cause), origin, signer, prefix)


def memory_key(place: Place) -> bytes:
    """The id under which a Core stores the page of a place; no hold has this id."""
    named = ctx(LIFT_PAGE, place.cause, place.origin, place.signer, place.prefix)
    return sha256(named).digest()[: limits.ID_SIZE]
