"""What is particular to one cloud: roles and aliases, versions, credentials."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from kcm_core.providers.context import provider_context
from kcm_core.providers.state import L1State
from kcm_core.unsealer.client import Unsealer

from tests.integration.unsealing import failure
from tests.l1.stands import MADE

CONTEXT = provider_context("acme", "eu-de", 1)
INNER = bytes(range(72))
D = 30.0

aws = pytest.mark.parametrize("shared", ["awskms"], indirect=True)
gcp = pytest.mark.parametrize("shared", ["gcpkms"], indirect=True)
azure = pytest.mark.parametrize("shared", ["azurekv"], indirect=True)
clouds = pytest.mark.parametrize("shared", ["awskms", "azurekv", "gcpkms"], indirect=True)


def named(stand, name):
    return (stand.directory / name).read_text()


async def there_and_back(unsealer, uri, back=None):
    made = await unsealer.wrap(uri, INNER, CONTEXT, deadline_s=D)
    out = bytearray(len(INNER))
    told = await unsealer.unwrap_into(
        back or uri, made.blob, CONTEXT, made.mechanism, memoryview(out), deadline_s=D
    )
    assert bytes(out) == INNER
    return made, told


@aws
async def test_a_role_is_assumed_first_and_named(unsealer, stand):
    made, told = await there_and_back(unsealer, named(stand, "role"))
    assert made.principal == told.principal
    assert made.principal.startswith("arn:aws:iam:")
    assert "AssumeRole" in stand.calls


@aws
async def test_a_role_without_its_external_id_is_forbidden(unsealer, stand):
    uri = named(stand, "role").replace("kcm-external", "somebody-else")
    error = await failure(unsealer.wrap(uri, INNER, CONTEXT, deadline_s=D))
    assert (error.state, error.cls) == (L1State.FORBIDDEN, "AccessDenied")


@aws
async def test_an_alias_wraps_and_the_keys_own_name_opens(unsealer, stand):
    made, told = await there_and_back(unsealer, named(stand, "alias"), stand.uri)
    assert ":key/" in made.key_version
    assert made.key_version == told.key_version


@aws
async def test_a_key_of_another_region_is_not_there(unsealer, stand):
    uri = stand.uri.replace("eu-central-1", "eu-west-1")
    error = await failure(unsealer.wrap(uri, INNER, CONTEXT, deadline_s=D))
    assert not error.state.refused or error.state is L1State.DELETED


@clouds
async def test_wrong_credentials_refuse_nothing(stand, tmp_path):
    environment = dict(stand.environment)
    for name in ("AWS_SECRET_ACCESS_KEY", "AZURE_CLIENT_SECRET"):
        if name in environment:
            environment[name] = "wrong"
    if "GOOGLE_APPLICATION_CREDENTIALS" in environment:
        environment["GOOGLE_APPLICATION_CREDENTIALS"] = another_account(environment, tmp_path)
    await refuses_nothing(stand, environment)


@clouds
async def test_no_credentials_at_all_refuse_nothing(stand):
    # Nobody answers where a cloud's machines would find their own identity.
    nowhere = {
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_GCE_CHECK": "true",
        "HOME": "/nonexistent",
        "KCM_L1_ENDPOINTS": stand.environment["KCM_L1_ENDPOINTS"],
    }
    await refuses_nothing(stand, nowhere)


def another_account(environment, directory):
    account = json.loads(Path(environment["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    path = directory / "account.json"
    path.write_text(json.dumps(account | {"client_email": "somebody@else.example"}))
    return str(path)


async def refuses_nothing(stand, environment):
    unsealer = Unsealer(environment)
    await unsealer.start()
    try:
        error = await failure(unsealer.wrap(stand.uri, INNER, CONTEXT, deadline_s=6.0))
        assert error.state is L1State.UNREACHABLE
        assert error.cls
    finally:
        await unsealer.close()


@gcp
async def test_a_pinned_version_wraps_and_any_opens_with_its_own(unsealer, stand):
    pinned, _ = await there_and_back(unsealer, named(stand, "pinned"))
    primary, _ = await there_and_back(unsealer, stand.uri)
    assert (pinned.key_version, primary.key_version) == ("1", "2")
    out = bytearray(len(INNER))
    told = await unsealer.unwrap_into(
        stand.uri, pinned.blob, CONTEXT, pinned.mechanism, memoryview(out), deadline_s=D
    )
    assert (bytes(out), told.key_version) == (INNER, "1")


@azure
async def test_a_version_of_its_own_opens_each_blob(unsealer, stand):
    made, _ = await there_and_back(unsealer, named(stand, "pinned"), stand.uri)
    assert made.blob[:32].decode() == made.key_version
    unknown = b"0" * 32 + made.blob[32:]
    error = await failure(
        unsealer.unwrap_into(
            stand.uri, unknown, CONTEXT, made.mechanism, memoryview(bytearray(72)), deadline_s=D
        )
    )
    # The key is there, so a version that is not is no deletion: nobody is killed by a blob.
    assert error.state is L1State.INVALID


@clouds
async def test_a_key_that_never_was_is_said_to_be_so(unsealer, stand):
    nothing = (stand.directory / "nothing").read_text()
    error = await failure(unsealer.wrap(nothing, INNER, CONTEXT, deadline_s=D))
    assert error.state is L1State.DELETED


@pytest.mark.parametrize("shared", sorted(MADE), indirect=True)
def test_check_says_what_is_missing_and_what_to_do(stand):
    def check():
        done = subprocess.run(
            [f"{sys.prefix}/bin/kcm", "l1", "check", stand.uri, "-o", "json"],
            env={"PATH": "/usr/bin:/bin", **stand.environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, json.loads(done.stdout)

    code, said = check()
    assert (code, said["state"], said["missing"]) == (0, "enabled", [])
    assert [one["step"] for one in said["steps"]] == STEPS
    assert all(one["ms"] >= 0 for one in said["steps"])
    for state, expected in CHECKED.items():
        if state in stand.states:
            stand.put(state)
            code, said = check()
            assert (code, said["state"]) == (expected, state.value)
            assert len(said["fix"]) == len(said["missing"]) == 1


@clouds
@pytest.mark.parametrize("allowed", ["", "127.0.0.1:1, elsewhere.example"])
async def test_no_credential_goes_to_an_endpoint_that_nobody_allowed(stand, allowed):
    unsealer = Unsealer({**stand.environment, "KCM_L1_ENDPOINTS": allowed})
    await unsealer.start()
    try:
        before = len(stand.calls)
        error = await failure(unsealer.wrap(stand.uri, INNER, CONTEXT, deadline_s=D))
        assert error.state is L1State.UNREACHABLE
        assert "not allowed" in error.detail
        assert len(stand.calls) == before
    finally:
        await unsealer.close()


STEPS = ["wrap", "unwrap", "canary", "another context", "attributes"]

CHECKED = {L1State.DISABLED: 3, L1State.FORBIDDEN: 3, L1State.UNREACHABLE: 5}
"""Exit codes of a check, by the key's state."""
