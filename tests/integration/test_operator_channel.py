"""Operators' requests on a real bus, to which an attacker listens and writes."""

from __future__ import annotations

import time

import pytest
from kcm import Admin
from kcm._internal.kills import Kills
from kcm_schemas import subjects
from kcm_schemas.codes import Code
from kcm_schemas.data_subjects import OPEN_OPERATOR

from tests.integration.living import EU, eventually
from tests.integration.test_core_channel import answered, tapped

ONE, TWO = f"core-{EU}-1", f"core-{EU}-2"
ADMIN = f"kcm.v1.{EU}.admin."

QUICKLY_S = 10.0
"""Much less than the time of one request, on a slow machine."""


def orders(heard):
    """The requests to one Core among what was heard."""
    found = [(subject, body) for subject, body, _ in heard if subject.startswith(ADMIN)]
    return [(subject, body) for subject, body in found if subject.count(".") == 6]


def exchanged(heard):
    """All that operators and Cores say to each other, and what begins their sessions."""
    asked = [one for one in heard if one[0].startswith((ADMIN, f"kcm.v1.{EU}.core."))]
    inboxes = {reply for _, _, reply in asked}
    return [body for _, body, _ in asked] + [body for to, body, _ in heard if to in inboxes]


async def test_a_captured_request_is_executed_by_no_core_and_shows_nothing(living):
    async with living.app() as thief, tapped(living, ">") as heard:
        tenant = await living.tenant(kind="softkey", regions=(EU,))
        async with Admin.open(living.context) as admin:
            (shown,) = [row for row in await admin.links(EU) if row.link == tenant]

        async def all_heard():
            done = {tuple(subject.split(".")[4:6]) for subject, _ in orders(heard)}
            return done >= {("link", "put"), ("tenant", "put"), ("link", "list")}

        await eventually(all_heard)
        assert shown.uri
        said = exchanged(heard)
        assert len(said) > 2 * len(orders(heard))
        for secret in (shown.uri, tenant):
            assert not [body for body in said if secret.encode() in body]
        for subject, body in orders(heard):
            place, _, _ = subject.rpartition(".")
            for core in (ONE, TWO):
                codes = {await answered(thief, f"{place}.{core}", body) for _ in range(30)}
                assert codes <= {Code.REPLAYED, Code.UNKNOWN_SESSION}
        assert await answered(thief, subjects.admin(EU, "hold", "put"), body) is Code.FORBIDDEN
        for subject, ticket, _ in list(heard):
            if subject.endswith(OPEN_OPERATOR):
                assert await answered(thief, subject, ticket) is Code.UNKNOWN_SESSION


@pytest.mark.slow
async def test_a_captured_request_is_not_executed_after_a_restart_and_one_core_is_enough(two_cores):
    living = two_cores
    async with tapped(living, f"{ADMIN}>") as heard:
        tenant = await living.tenant(kind="softkey")
        async with Admin.open(living.context) as admin:
            for core in (ONE, TWO):
                await admin.key_use(EU, core)
            living.sigkill(TWO)
            # The operator's client has sessions with both: the other one serves at once.
            began = time.monotonic()
            other = await living.tenant(kind="softkey")
            assert {row.tenant for row in (await admin.tenants(EU))[0]} >= {tenant, other}
            kills = Kills(admin, [EU])
            hold = kills.make("tenant", other, "test")
            until = admin.around.clock.elapsed() + QUICKLY_S
            await kills.place(hold, until)
            assert (await kills.status(hold.id, until)).hold_id == hold.id
            assert time.monotonic() - began < QUICKLY_S
            await living.restart(TWO)
            for _ in range(4):  # a session with an incarnation that is gone is replaced
                assert (await admin.key_use(EU, TWO)).core == TWO
                assert await admin.has_link(EU, tenant)
        captured = orders(heard)
        assert {subject.rpartition(".")[2] for subject, _ in captured} >= {ONE, TWO}
        async with living.app() as thief:
            for subject, body in captured[:20]:
                place, _, _ = subject.rpartition(".")
                assert await answered(thief, f"{place}.{TWO}", body) in {
                    Code.REPLAYED, Code.UNKNOWN_SESSION,
                }  # fmt: skip
