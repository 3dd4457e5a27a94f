"""The Core's own credentials for Azure: without them nobody has said no, and each has one name."""

from __future__ import annotations

import base64
import json

import pytest
from kcm_core.providers.azure_key_vault.provider import MECHANISM, object_of
from kcm_core.providers.remediation import fix
from kcm_core.providers.state import L1Error, L1State
from kcm_core.providers.uri import parse

from tests.integration.unsealing import failure
from tests.l1 import doors
from tests.l1.servers.azurekv import CLIENT, CLUSTER_TOKEN, OBJECT, TENANT
from tests.l1.using import CONTEXT, INNER, D, said_nothing, used

pytestmark = pytest.mark.parametrize("shared", ["azurekv"], indirect=True)


def of_a_pod(stand, directory, token=CLUSTER_TOKEN):
    """What a cluster gives a pod that has an identity: a token in a file."""
    path = directory / "token"
    path.write_text(token)
    return {
        "KCM_L1_ENDPOINTS": stand.environment["KCM_L1_ENDPOINTS"],
        "AZURE_TENANT_ID": TENANT,
        "AZURE_CLIENT_ID": CLIENT,
        "AZURE_FEDERATED_TOKEN_FILE": str(path),
    }


async def test_whoever_asks_is_named_by_the_object_that_roles_are_assigned_to(stand, tmp_path):
    assert set(await used(stand, dict(stand.environment))) == {OBJECT}
    assert set(await used(stand, of_a_pod(stand, tmp_path), times=2)) == {OBJECT}


async def test_without_the_right_to_read_a_key_a_missing_version_is_no_refusal(stand, unsealer):
    """A wrapped key can name any version, and the vault does not say which of the two is absent."""
    uri = (stand.directory / "unreadable").read_text()
    blob, out = b"0" * 32 + bytes(256), memoryview(bytearray(len(INNER)))
    before = len(stand.calls)
    with pytest.raises(L1Error, match="does not say which") as caught:
        await unsealer.unwrap_into(uri, blob, CONTEXT, MECHANISM, out, deadline_s=D)
    assert caught.value.state is L1State.UNREACHABLE
    sent = [call for call in stand.calls[before:] if "unauthenticated" not in call]
    assert sent == ["unwrapkey", "get"]


async def test_unwrapping_is_one_request(stand, unsealer):
    before = len(stand.calls)
    await used(stand, dict(stand.environment))
    sent = [call for call in stand.calls[before:] if "unauthenticated" not in call]
    # What was wrapped is opened again before it is believed.
    assert sent == ["get", "unwrapkey", "unwrapkey"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"AZURE_CLIENT_SECRET": "s3cret-of-nobody"},
        {"AZURE_CLIENT_ID": "00000000-0000-0000-0000-000000000000"},
        {"AZURE_TENANT_ID": "s3cret tenant"},
        {"AZURE_CLIENT_SECRET": "", "AZURE_CLIENT_CERTIFICATE_PATH": "/nonexistent/s3cret"},
        {"AZURE_CLIENT_SECRET": "", "AZURE_FEDERATED_TOKEN_FILE": "/nonexistent/s3cret"},
    ],
    ids=["secret", "client", "tenant", "certificate", "token file"],
)
async def test_wrong_credentials_refuse_nothing_and_are_not_printed(stand, capfd, wrong):
    error = await failure(used(stand, {**stand.environment, **wrong}))
    assert error.state is L1State.UNREACHABLE
    assert "credentials" in error.detail
    assert "AZURE_CLIENT_ID" in fix(parse(stand.uri), error)
    assert "s3cret" not in str(error)
    said_nothing(capfd.readouterr(), "s3cret", "AADSTS", "azure")


async def test_a_pod_that_is_denied_its_token_refuses_nothing(stand, tmp_path, capfd):
    error = await failure(used(stand, of_a_pod(stand, tmp_path, token="s3cret-that-nobody-knows")))
    assert error.state is L1State.UNREACHABLE
    assert "credentials" in error.detail
    said_nothing(capfd.readouterr(), "s3cret", "AADSTS", "azure")


def test_who_has_no_object_has_a_name_of_its_host(shared):
    del shared
    claims = base64.urlsafe_b64encode(json.dumps({"oid": "o"}).encode()).decode().rstrip("=")
    assert object_of(f"e30.{claims}.x") == "o"
    others = {object_of(token) for token in ("", "opaque", "a.b.c", "e30.e30.x", "e30.W10.x")}
    assert len(others) == 1
    assert others.pop().startswith("no-object@")


@pytest.mark.parametrize(
    ("vault", "authority"),
    [
        ("acme.vault.azure.cn", ""),
        ("acme.managedhsm.usgovcloudapi.net", "https://login.chinacloudapi.cn"),
        ("acme.vault.azure.net", "https://login.microsoftonline.us/"),
    ],
)
async def test_credentials_are_sent_to_no_other_cloud_than_their_own(stand, vault, authority):
    uri = f"azurekv:{vault}/root"
    with doors.proxy() as door:
        ways = {"HTTPS_PROXY": f"http://127.0.0.1:{door.port}", "AZURE_AUTHORITY_HOST": authority}
        error = await failure(used(stand, {**stand.environment, **ways}, uri))
    assert error.state is L1State.UNREACHABLE
    assert "AZURE_AUTHORITY_HOST" in error.detail
    assert parse(uri).cloud.login in fix(parse(uri), error)
    assert door.asked == []


@pytest.mark.parametrize("login", ["login.chinacloudapi.cn", "login.partner.example"])
async def test_a_vault_of_the_credentials_own_cloud_is_asked(stand, login):
    with doors.proxy() as door:
        ways = {
            "HTTPS_PROXY": f"http://127.0.0.1:{door.port}",
            "AZURE_AUTHORITY_HOST": f"https://{login}",
        }
        uri = "azurekv:acme.vault.azure.cn/root"
        error = await failure(used(stand, {**stand.environment, **ways}, uri))
    assert error.state is L1State.UNREACHABLE
    # The vault is asked first, without a token, and told no secret.
    assert door.asked == ["acme.vault.azure.cn:443"]
