"""`kcm kill` when brokers or Cores do not accept the operator: it says why, and ends in time."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from kcm._internal.client_context import NotLetIn
from kcm.errors import Unreached
from kcm.exit_codes import Exit
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code
from kcm_schemas.signed import Kind

from tests.fakes.client import REGIONS
from tests.fakes.refusals import failure
from tests.unit.operator_rig import Cores, Desk

REJECTED = "the broker rejects these credentials"
HINT = "the context names the file of the login"


def opening(desk: Desk, errors: dict[str, Exception]) -> list[str]:
    """The brokers of these regions fail; returns the regions to which somebody connects."""
    known, opened = desk.system.open, []

    async def open_one(address, name):
        region = address.url.removeprefix("nats://")
        opened.append(region)
        if region in errors:
            raise errors[region]
        return await known(address, name)

    desk.system.open = open_one
    return opened


@pytest.mark.parametrize("named", [["acme"], ["--app", "shop"], ["--link", "acme-root"]])
def test_credentials_that_no_broker_takes_are_the_contexts_fault(
    desk: Desk, cores: Cores, named: list[str]
) -> None:
    opened = opening(desk, {region: NotLetIn(REJECTED, HINT) for region in REGIONS})
    code, _, err = desk.run("kill", *named, "--timeout", "60", "-o", "json")
    said = json.loads(err.splitlines()[-1])
    assert (code, said["error"]) == (Exit.USAGE, "context")
    assert f"eu, us: {REJECTED}" in said["detail"]
    assert said["hint"] == HINT
    assert desk.system.clock.now == 1000.0, "nothing is tried again"
    assert set(opened) == set(REGIONS)


def test_one_broker_that_rejects_them_is_named_while_another_one_may_return(
    desk: Desk, cores: Cores
) -> None:
    opening(desk, {"eu": NotLetIn(REJECTED, HINT), "us": Unreached("no program listens there")})
    code, _, err = desk.run("kill", "acme", "--timeout", "10", "-o", "table")
    assert code == Exit.UNAVAILABLE
    assert f"eu: {REJECTED}; us: no program listens there" in err.splitlines()[-2]
    assert 1000.0 < desk.system.clock.now <= 1010.0


def test_one_broker_that_accepts_them_is_enough(desk: Desk, cores: Cores) -> None:
    opening(desk, {"eu": NotLetIn(REJECTED, HINT)})
    assert desk.run("kill", "acme")[0] == Exit.OK


def test_a_connection_that_hangs_takes_no_longer_than_the_attempt(desk: Desk, cores: Cores) -> None:
    async def hang(address, name):
        desk.system.clock.now += 1
        await asyncio.sleep(3600)

    desk.system.open = hang
    begun = time.monotonic()
    code, _, err = desk.run("kill", "acme", "--timeout", "1", "-o", "table")
    assert code == Exit.UNAVAILABLE
    assert "no connection to the broker in time" in err
    assert time.monotonic() - begun < 4


def test_a_refusal_without_a_signature_ends_no_kill(desk: Desk, cores: Cores) -> None:
    """A hostile broker forges what it likes; then a Core gets the request."""
    cores.looks = 0
    refusals = dict.fromkeys(REGIONS, 15)
    for region, core in desk.system.cores.items():

        def forge(reply, request, region=region, core=core):
            if request.verb == "put" and refusals[region]:
                refusals[region] -= 1
                return failure(Code.FORBIDDEN, "the signer is not on the roster: alice")
            return encode(core.identity.sign(Kind.ADMIN_REPLY, reply))

        core.forge = forge
    code, _, err = desk.run("kill", "acme", "-o", "table")
    assert code == Exit.OK, err
    assert "the signer is not on the roster" in err


@pytest.mark.parametrize("code", sorted(set(Code) - {Code.OK, Code.BUSY}, key=str))
def test_a_kill_that_is_refused_without_a_signature_until_its_end_is_unavailable(
    desk: Desk, cores: Cores, code: Code
) -> None:
    for core in desk.system.cores.values():
        core.forge = lambda reply, request: failure(code, "the signer bob is retired: really")
    exit_code, _, err = desk.run("kill", "acme", "--timeout", "5", "-o", "json")
    said = json.loads(err.splitlines()[-1])
    assert (exit_code, said["error"]) == (Exit.UNAVAILABLE, "unavailable")
    assert f"refuses without a signature ({code.value}): the signer is retired" in said["detail"]
    assert "bob" not in said["detail"]
    assert "use the context of another one" in said["hint"]


def test_a_forged_reply_ends_no_kill(desk: Desk, cores: Cores) -> None:
    """It is signed by a Core of another region, and so is the last one."""
    other = desk.system.identities["core-us"]
    core, forged = desk.system.cores["eu"], iter(range(3))
    desk.system.unreachable.add("us")

    def forge(reply, request):
        foreign = request.verb == "put" and next(forged, None) is not None
        return encode((other if foreign else core.identity).sign(Kind.ADMIN_REPLY, reply))

    core.forge = forge
    cores.looks = 0
    assert desk.run("kill", "acme")[0] == Exit.OK
    assert next(forged, None) is None
