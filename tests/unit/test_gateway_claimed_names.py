"""Refused tickets of applications: on record with the name that they claim, and bounded."""

from __future__ import annotations

import logging

import pytest
from kcm_runtime.audit.rejection_log import KINDS_MAX
from kcm_schemas.audit import EventType
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code
from kcm_schemas.session import Ticket

from tests.unit.app_rig import Bus, Served, app, channel, following
from tests.unit.refusals import refusal, refused
from tests.unit.test_client_sealed import ask

REVOKED = (
    "a caller's ticket: forbidden: the ticket does not count: the application is revoked"
    " (claimed name: shop)"
)
SUBJECT = "kcm.v1.eu.gateway.gw-eu.open"


@pytest.fixture
def gateway():
    made = Served()
    entry = app("shop", "acme/crm")
    made.registry.put(entry)
    made.registry.put(following(entry, revoked=True, grants=[]))
    return made


@pytest.fixture
async def ticket(gateway):
    """A ticket of the application for this Gateway."""
    bus = Bus(gateway)
    await refusal(ask(bus, channel(bus)))
    ticket = bus.message("open")
    gateway.sessions.close()
    gateway.audit.all.clear()
    return ticket


def claiming(ticket, name):
    fields = dict(decode(Ticket, ticket)) | {"caller": name}
    return encode(Ticket.model_construct(**fields))


def told(gateway):
    """The rejections on record, and how often."""
    gateway.sessions.close()
    assert all(kind == EventType.TRUST_REFUSED for kind, _ in gateway.audit.all)
    assert all(fields["actor"] is None for _, fields in gateway.audit.all)
    return [(fields["detail"], fields["count"]) for _, fields in gateway.audit.all]


async def test_the_application_is_named_as_claimed_and_its_tries_are_counted(
    gateway, ticket, caplog
):
    caplog.set_level(logging.WARNING)
    for _ in range(50):
        assert await refused(gateway.sessions.handle(SUBJECT, ticket)) is Code.FORBIDDEN
    assert told(gateway) == [(REVOKED, 1), (REVOKED, 49)]
    assert [one.getMessage() for one in caplog.get_records("call")] == [
        f"rejected (1 times): {REVOKED}",
        f"rejected (49 times): {REVOKED}",
    ]


async def test_invented_names_are_bounded_and_hide_no_known_application(gateway, ticket):
    for number in range(20 * KINDS_MAX):
        made = claiming(ticket, f"invented-{number}")
        assert await refused(gateway.sessions.handle(SUBJECT, made)) is Code.FORBIDDEN
    assert await refused(gateway.sessions.handle(SUBJECT, ticket)) is Code.FORBIDDEN
    found = told(gateway)
    assert (REVOKED, 1) in found
    assert len(found) <= 2 * (KINDS_MAX + 1) + 1
    assert sum(number for _, number in found) == 20 * KINDS_MAX + 1


@pytest.mark.parametrize("name", ["", "Shop", "a b", "a.b", "shop\n", "x" * 64, "sh\u00f6p"])
async def test_a_name_that_is_none_is_not_recorded(gateway, ticket, name):
    assert await refused(gateway.sessions.handle(SUBJECT, claiming(ticket, name))) is Code.MALFORMED
    assert told(gateway) == []
