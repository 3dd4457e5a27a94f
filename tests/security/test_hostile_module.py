"""A hostile PKCS#11 module in a child of the unsealer gets nothing that is not its own.

Every attempt is made twice: in a confined unsealer, where it must be refused, and in one whose
confinement is switched off, where it must succeed. So a refusal is due to the confinement. Under a
user of its own, the unsealer is refused the Core's things without it, too.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager

import pytest
from kcm_core.unsealer.client import Unsealer
from kcm_core.unsealer.confinement.confine import SWITCH
from kcm_core.unsealer.confinement.grants import keeping_out

from tests.integration.other_user import UID, open_directory, other_user
from tests.security.hostile.rig import OF_THE_CORE, OF_THE_UNSEALER, Hostile, Prey

ROOT = os.geteuid() == 0
"""Only root starts a process of another user."""


@pytest.fixture(scope="module")
def hostile():
    with open_directory() as directory:
        yield Hostile.build(directory / "module")


@pytest.fixture
def prey(tmp_path):
    return Prey(tmp_path)


@asynccontextmanager
async def running(environment):
    unsealer = Unsealer(environment)
    await unsealer.start()
    try:
        yield unsealer
    finally:
        await unsealer.close()


async def made(hostile, prey, **more):
    environment = {**hostile.environment, **keeping_out(prey.own_paths), **more}
    async with running(environment) as unsealer:
        with prey.attempts() as attempts:
            return await hostile.results(unsealer, prey.pin, prey.mark, attempts)


async def test_every_attempt_is_refused(hostile, prey):
    results = await made(hostile, prey)
    assert [name for name, result in results.items() if result != "refused"] == []


async def test_without_the_confinement_every_attempt_succeeds(hostile, prey):
    results = await made(hostile, prey, **{SWITCH: "off"})
    refused = {name for name, result in results.items() if result != "got"}
    # Of a server that no user but root may trace, the confinement is the second protection.
    assert refused == (set() if ROOT else {"tracing of the fork server"})


@pytest.mark.parametrize("switch", ["on", "off"])
@pytest.mark.parametrize(
    ("variable", "result"),
    [
        ("AWS_SECRET_ACCESS_KEY", "refused"),
        ("AZURE_CLIENT_SECRET", "refused"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "refused"),
        ("HTTPS_PROXY", "refused"),
        ("VENDOR_PASSWORD", "got"),  # its own
    ],
)
async def test_a_module_has_the_variables_of_its_own_alone(hostile, prey, variable, result, switch):
    attempts = {"the variable": "variable", "a descriptor": "descriptor"}
    environment = {**hostile.environment, variable: prey.mark, SWITCH: switch}
    async with running(environment) as unsealer:
        results = await hostile.results(unsealer, prey.pin, prey.mark, attempts)
    assert results == {"the variable": result, "a descriptor": "refused"}


@pytest.mark.parametrize("what", ["the seal key", "the Core's identity"])
async def test_no_link_opens_the_cores_files_to_a_module(hostile, prey, what):
    """An operator names the file of the PIN in a link, and might name a file of the Core."""
    with prey.attempts() as attempts:
        wanted = {what: attempts[what]}
        stolen = prey.directory / attempts[what].removeprefix("read ")
        environment = {**hostile.environment, **keeping_out(prey.own_paths)}
        async with running(environment) as unsealer:
            assert await hostile.results(unsealer, stolen, prey.mark, wanted) == {what: "refused"}
        # Where the Core keeps nothing, the file that a link names is open: it is the module's PIN.
        async with running(hostile.environment) as unsealer:
            assert await hostile.results(unsealer, stolen, prey.mark, wanted) == {what: "got"}


@pytest.mark.parametrize("directory", ["pins", "credentials"])
async def test_no_link_opens_a_directory_to_a_module(hostile, prey, directory):
    what = {"pins": "the PIN of another tenant", "credentials": OF_THE_UNSEALER[0]}[directory]
    with prey.attempts() as attempts:
        wanted = {what: attempts[what]}
        async with running(hostile.environment) as unsealer:
            pin = prey.directory / directory
            assert await hostile.results(unsealer, pin, prey.mark, wanted) == {what: "refused"}


async def test_a_link_that_a_module_planted_opens_nothing(hostile, prey):
    planted = hostile.exchange / "planted"
    planted.symlink_to(prey.directory / "secrets")
    try:
        results = await made(hostile, prey, KCM_L1_READ=str(planted))
    finally:
        planted.unlink()
    assert set(results.values()) == {"refused"}


if ROOT:

    @pytest.mark.parametrize("switch", ["on", "off"])
    async def test_under_its_own_user_a_module_gets_nothing_of_the_core(hostile, switch):
        with open_directory() as directory:
            prey = Prey(directory)
            prey.give_to(UID)
            with other_user(directory, {**hostile.environment, SWITCH: switch}) as running:
                unsealer = running.unsealer()
                with prey.attempts() as attempts:
                    results = await hostile.results(unsealer, prey.pin, prey.mark, attempts)
                await unsealer.close()
        got = {name for name, result in results.items() if result != "refused"}
        if switch == "on":
            assert got == set()
        else:
            assert got.isdisjoint(OF_THE_CORE)
            assert "the PIN of another tenant" in got  # the unsealer's own, as is the next
            assert "the credentials of another provider" in got
