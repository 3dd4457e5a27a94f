"""Holds of root keys, and pages that end them."""

from kcm_killswitch.model import id_set
from kcm_schemas import subjects
from kcm_trust.statements import lift, lifts

from tests.unit.switch import statements
from tests.unit.switch.statements import at, hold
from tests.vectors.families.messages import identity

KEYS = {"scope": "link", "target": "acme-root", "cause": "l1"}


def placer(one):
    return f"core-{one.origin}-1" if one.cause == "l1" else "security"


def held(one, signer=None):
    return statements.held(one, signer or placer(one))


def lifted(one, signer=None):
    raw = held(one, signer)
    return lift(identity(signer or placer(one)), raw, issued_ms=9, reason="over")


def some(count=3, prefix=0, **changes):
    """Holds of a customer's key whose ids begin with one byte."""
    found = []
    while len(found) < count:
        one = hold(**(KEYS | changes))
        if one.id[0] == prefix:
            found.append(one)
    return sorted(found, key=lambda one: one.id)


def page(holds, signer="core-eu-1", cause="l1", origin="eu"):
    them = id_set.of(one.id for one in holds)
    return lifts(identity(signer), cause=cause, origin=origin, issued_ms=9, ids=them)


def page_at(signer="core-eu-1", cause="l1", prefix=0):
    return subjects.control_lifts("eu", cause, "eu", signer, prefix)


def put(incarnation, holds, make=lifted):
    for one in holds:
        incarnation.stream.store(at(one), make(one))


def data(incarnation, subject):
    entry = incarnation.stream.entries.get(subject)
    return None if entry is None else entry.data
