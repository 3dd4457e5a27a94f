"""What each provider says of a key, through the unsealer and against its server."""

import json
import os
import subprocess
import sys

import pytest
from kcm_core.providers import requirements
from kcm_core.providers.state import L1State
from kcm_core.providers.uri import parse

from tests.integration.unsealing import failure
from tests.l1.stand import Trouble
from tests.l1.stands import CLOUDS, MADE

D = 30.0
clouds = pytest.mark.parametrize("shared", CLOUDS, indirect=True)


@pytest.mark.parametrize("shared", sorted(MADE), indirect=True)
async def test_a_provider_says_all_that_is_demanded_and_a_good_key_lacks_nothing(stand, unsealer):
    facts = await unsealer.inspect(stand.uri, deadline_s=D)
    uri = parse(stand.uri)
    assert {one.fact for one in requirements.of(uri, facts)} <= set(facts)
    assert requirements.lacking(uri, facts, "byok") == ()


@pytest.mark.parametrize("shared", ["gcpkms"], indirect=True)
async def test_a_version_that_the_uri_names_is_the_one_that_is_looked_at(stand, unsealer):
    facts = await unsealer.inspect(f"{stand.uri}", deadline_s=D)
    path, _, query = stand.uri.partition("?")
    pinned = f"{path}/cryptoKeyVersions/1?{query}"
    before = len(stand.calls)
    assert await unsealer.inspect(pinned, deadline_s=D) == facts
    assert stand.calls[before:] == ["get_crypto_key", "get_crypto_key_version"]
    none = f"{path}/cryptoKeyVersions/99?{query}"
    assert (await failure(unsealer.inspect(none, deadline_s=D))).state is L1State.DELETED


@pytest.mark.parametrize(
    ("shared", "software"), [("azurekv", True), ("gcpkms", True), ("awskms", False)],
    indirect=["shared"],
)  # fmt: skip
def test_a_key_in_software_is_none_for_hyok(stand, software):
    done = subprocess.run(
        [f"{sys.prefix}/bin/kcm", "l1", "check", stand.uri, "-o", "json", "--model", "hyok"],
        env={"PATH": os.environ["PATH"], **stand.environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    said = json.loads(done.stdout)
    assert said["state"] == "enabled"
    assert (done.returncode, len(said["missing"])) == ((3, 1) if software else (0, 0))


@clouds
@pytest.mark.parametrize("trouble", [Trouble.RESET, Trouble.THROTTLE, Trouble.UNAVAILABLE])
async def test_who_cannot_look_is_told_so_and_nobody_refused(stand, unsealer, trouble):
    stand.trouble(trouble)
    error = await failure(unsealer.inspect(stand.uri, deadline_s=D))
    assert error.state is L1State.UNREACHABLE
