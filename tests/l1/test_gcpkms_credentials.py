"""The Core's own credentials for Google: without them nobody has said no, and each has one name."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from google.auth import identity_pool
from kcm_core.providers.gcp_kms.provider import principal_name
from kcm_core.providers.remediation import fix
from kcm_core.providers.state import L1State
from kcm_core.providers.uri import parse

from tests.integration.unsealing import failure
from tests.l1 import doors
from tests.l1.servers.gcpkms import ACCOUNT
from tests.l1.using import said_nothing, used

pytestmark = pytest.mark.parametrize("shared", ["gcpkms"], indirect=True)

VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
POOL = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q"


def of_a_pool(directory, **more):
    """What a cluster outside Google gives a pod: a token to be changed into Google's own."""
    (directory / "token").write_text("s3cret-token")
    return {
        "type": "external_account",
        "audience": POOL,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://127.0.0.1:1/v1/token",
        "credential_source": {"file": str(directory / "token")},
        **more,
    }


def account(stand):
    return json.loads(Path(stand.environment[VARIABLE]).read_text())


def with_file(stand, directory, content):
    path = directory / "s3cret.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return {**stand.environment, VARIABLE: str(path)}


async def test_a_service_account_is_named_by_its_address(stand):
    assert set(await used(stand, dict(stand.environment), times=2)) == {ACCOUNT}


async def test_one_operation_is_one_request(stand):
    before = len(stand.calls)
    await used(stand, dict(stand.environment))
    # What was wrapped is opened again before it is believed.
    assert stand.calls[before:] == ["encrypt", "decrypt", "decrypt"]


@pytest.mark.parametrize("content", ["", "no JSON: s3cret", "[]", {"type": "s3cret"}, {}])
async def test_a_file_that_is_no_credentials_refuses_nothing(stand, tmp_path, capfd, content):
    error = await failure(used(stand, with_file(stand, tmp_path, content)))
    assert error.state is L1State.UNREACHABLE
    assert "credentials" in error.detail
    assert VARIABLE in fix(parse(stand.uri), error)
    assert "s3cret" not in str(error)
    said_nothing(capfd.readouterr(), "s3cret", "google", "grpc")


async def test_a_key_that_is_no_key_refuses_nothing(stand, tmp_path, capfd):
    wrong = {**account(stand), "private_key": "s3cret"}
    error = await failure(used(stand, with_file(stand, tmp_path, wrong)))
    assert error.state is L1State.UNREACHABLE
    said_nothing(capfd.readouterr(), "s3cret", "google", "grpc")


async def test_an_account_that_google_does_not_know_refuses_nothing(stand, tmp_path, capfd):
    wrong = {**account(stand), "client_email": "s3cret@nowhere.example"}
    error = await failure(used(stand, with_file(stand, tmp_path, wrong)))
    assert (error.state, error.cls) == (L1State.UNREACHABLE, "Unauthenticated")
    said_nothing(capfd.readouterr(), "s3cret", "google", "grpc")


async def test_a_pool_that_gives_no_token_refuses_nothing(stand, tmp_path, capfd):
    error = await failure(used(stand, with_file(stand, tmp_path, of_a_pool(tmp_path))))
    assert error.state is L1State.UNREACHABLE
    assert "credentials" in error.detail
    said_nothing(capfd.readouterr(), "s3cret", "google", "grpc", "Connection")


def test_who_acts_for_itself_in_a_pool_has_a_name_of_its_host(shared, tmp_path):
    # Two hosts' workloads may have different rights there: they must not share attestations.
    del shared
    pool = identity_pool.Credentials.from_info(of_a_pool(tmp_path))
    assert principal_name(pool).startswith(f"{POOL}@")
    address = "projects/-/serviceAccounts/core@kcm-test.iam.gserviceaccount.com"
    url = f"https://iamcredentials.googleapis.com/v1/{address}:generateAccessToken"
    acting = of_a_pool(tmp_path, service_account_impersonation_url=url)
    assert principal_name(identity_pool.Credentials.from_info(acting)) == ACCOUNT
    assert principal_name(SimpleNamespace()).startswith("no-address@")


async def test_the_service_is_the_one_of_the_credentials_universe(stand, tmp_path):
    key = stand.uri.partition("?")[0]
    for more, host in (
        ({}, "cloudkms.googleapis.com:443"),
        ({"universe_domain": "apis.sovereign.example"}, "cloudkms.apis.sovereign.example:443"),
    ):
        with doors.proxy() as door:
            environment = with_file(stand, tmp_path, {**account(stand), **more})
            environment["HTTPS_PROXY"] = f"http://127.0.0.1:{door.port}"
            error = await failure(used(stand, environment, key))
        assert error.state is L1State.UNREACHABLE
        assert set(door.asked) == {host}
