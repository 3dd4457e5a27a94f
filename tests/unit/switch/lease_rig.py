"""Lease entries of incarnations, and streams that a test holds."""

import asyncio

from kcm_schemas import subjects
from kcm_schemas.control import Lease
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind

from tests.unit.switch.statements import VERIFIER, signed


def own(incarnation):
    return subjects.control_lease(
        incarnation.region, incarnation.me.name, incarnation.me.incarnation
    )


def own_record(incarnation):
    return VERIFIER.lease(incarnation.stream.entries[own(incarnation)].data)


def foreign(incarnation, number=1, **changes):
    """A lease entry of another incarnation of the region, as it is stored."""
    fields = {"nonce": number.to_bytes(16, "big"), "first": 0, "ended": False, "holds": bytes(32)}
    fields["roster"] = 1
    record = Lease(
        instance="gw-eu-2",
        incarnation=b"incarnation-two-",
        role=Role.GATEWAY,
        region="eu",
        lease_ms=1,
        registry=[bytes(16)] * 16,
        **(fields | changes),
    )
    return (
        subjects.control_lease("eu", "gw-eu-2", b"incarnation-two-"),
        signed(Kind.LEASE, record, "gw-eu-2"),
    )


def hold_place(one):
    return subjects.control_hold("eu", one.scope, one.id)


class Held:
    """Keeps operations of a log back until they are let go."""

    def __init__(self, operation, subject=None):
        self.wanted = (operation, subject)
        self.arrived = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, operation, subject):
        if operation == self.wanted[0] and self.wanted[1] in (None, subject):
            self.arrived.set()
            await self.go.wait()
