"""The Core's own credentials for AWS: without them nobody has said no, and no name changes.

Where they come from is the business of whoever runs the Core. That AWS denies a pod its role, or
that a session is over, says nothing about the customer's key, whatever the words are.
"""

from __future__ import annotations

import pytest
from kcm_core.providers.remediation import fix
from kcm_core.providers.state import L1State
from kcm_core.providers.uri import parse

from tests.integration.unsealing import failure
from tests.l1.servers.awskms import ACCESS_KEY, EXPIRED, ROLE, SECRET_KEY, WEB_TOKEN
from tests.l1.using import said_nothing, used

pytestmark = pytest.mark.parametrize("shared", ["awskms"], indirect=True)

KEPT = ("AWS_CA_BUNDLE", "AWS_ENDPOINT_URL_STS", "KCM_L1_ENDPOINTS")


def without_a_key(stand, **more):
    """An environment that has no access key; nobody answers for the machine either."""
    kept = {name: stand.environment[name] for name in KEPT}
    return {**kept, "AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nonexistent", **more}


def of_a_pod(stand, directory, token=WEB_TOKEN):
    """What a cluster gives a pod that has a role: a token in a file."""
    path = directory / "token"
    path.write_text(token)
    return without_a_key(stand, AWS_ROLE_ARN=ROLE, AWS_WEB_IDENTITY_TOKEN_FILE=str(path))


async def test_a_pod_has_one_name_however_often_it_gets_a_session(stand, tmp_path):
    # An attestation serves whoever uses the key in the same name: one that changed would end every
    # lease.
    assert set(await used(stand, of_a_pod(stand, tmp_path), times=2)) == {ROLE}


async def test_one_session_is_fetched_for_one_operation(stand, tmp_path):
    before = len(stand.calls)
    await used(stand, of_a_pod(stand, tmp_path))
    # What was wrapped is opened again before it is believed, so there are three operations.
    wanted = ("Encrypt", "Decrypt", "Decrypt")
    assert stand.calls[before:] == [
        call for one in wanted for call in ("AssumeRoleWithWebIdentity", one)
    ]


async def test_a_role_of_a_profile_is_the_name(stand, tmp_path):
    config, keys = tmp_path / "config", tmp_path / "credentials"
    config.write_text(
        f"[profile kcm]\nrole_arn = {ROLE}\nexternal_id = kcm-external\nsource_profile = base\n"
    )
    keys.write_text(
        f"[base]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    environment = without_a_key(
        stand,
        AWS_CONFIG_FILE=str(config),
        AWS_SHARED_CREDENTIALS_FILE=str(keys),
        AWS_PROFILE="kcm",
        AWS_ROLE_ARN="arn:aws:iam::111122223333:role/of-something-else",
    )
    assert set(await used(stand, environment, times=2)) == {ROLE}


async def test_a_long_lived_key_is_its_own_name(stand):
    assert set(await used(stand, dict(stand.environment))) == {ACCESS_KEY}


async def test_a_pod_that_is_denied_its_role_refuses_nothing(stand, tmp_path, capfd):
    environment = of_a_pod(stand, tmp_path, token="s3cret-that-nobody-believes")
    error = await failure(used(stand, environment))
    assert (error.state, error.cls) == (L1State.UNREACHABLE, "AccessDenied")
    assert "get-caller-identity" in fix(parse(stand.uri), error)
    said_nothing(capfd.readouterr(), "Not authorized", "botocore")


async def test_a_pod_without_its_token_refuses_nothing(stand, tmp_path):
    environment = of_a_pod(stand, tmp_path)
    (tmp_path / "token").unlink()
    error = await failure(used(stand, environment))
    assert error.state is L1State.UNREACHABLE
    assert error.cls == "FileNotFoundError"
    assert str(tmp_path) not in str(error)


async def test_a_session_that_is_over_refuses_nothing(stand):
    access, secret, token = EXPIRED
    environment = without_a_key(
        stand,
        AWS_ACCESS_KEY_ID=access,
        AWS_SECRET_ACCESS_KEY=secret,
        AWS_SESSION_TOKEN=token,
    )
    error = await failure(used(stand, environment))
    assert (error.state, error.cls) == (L1State.UNREACHABLE, "ExpiredTokenException")


async def test_a_private_endpoint_is_the_keys_and_not_where_roles_are_assumed(stand):
    # AWS's private endpoint of KMS does not serve STS: that one is found on its own.
    environment = {**stand.environment, "AWS_ENDPOINT_URL_STS": "https://127.0.0.1:1"}
    role = (stand.directory / "role").read_text()
    before = len(stand.calls)
    error = await failure(used(stand, environment, role))
    assert error.state is L1State.UNREACHABLE
    assert stand.calls[before:] == []
