"""References to keys in clouds: understood as they are meant, or refused without repeating them."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcm_core.providers import endpoints
from kcm_core.providers.aws_kms.encryption_context import OTHER, as_pairs
from kcm_core.providers.aws_kms.remediation import policy as aws_policy
from kcm_core.providers.remediation import fix, policy
from kcm_core.providers.state import L1Error, L1State
from kcm_core.providers.uri import AwsKmsUri, AzureKvUri, GcpKmsUri, L1UriError, UriReason, parse
from kcm_schemas import labels
from kcm_schemas.labels import ctx

ID = "1234abcd-12ab-34cd-56ef-1234567890ab"
MRK = "mrk-" + "1234abcd" * 4
ARN = f"arn:aws:kms:eu-central-1:111122223333:key/{ID}"
MRK_ARN = f"arn:aws:kms:eu-central-1:111122223333:key/{MRK}"
ROLE = "arn:aws:iam::111122223333:role/kcm/core"
GCP = "projects/p-1/locations/europe-west3/keyRings/ring/cryptoKeys/root"


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        (f"awskms:{ARN}", AwsKmsUri(ARN, "eu-central-1")),
        (f"awskms:{ARN}?region=eu-central-1", AwsKmsUri(ARN, "eu-central-1")),
        (
            f"awskms:{MRK_ARN}?region=us-east-1",
            AwsKmsUri(MRK_ARN.replace("eu-central-1", "us-east-1"), "us-east-1"),
        ),
        (f"awskms:{MRK}?region=us-gov-west-1", AwsKmsUri(MRK, "us-gov-west-1")),
        (f"awskms:{ID}?region=eu-central-1", AwsKmsUri(ID, "eu-central-1")),
        (
            "awskms:alias/acme/root?region=eu-central-1",
            AwsKmsUri("alias/acme/root", "eu-central-1"),
        ),
        (
            "awskms:arn:aws-cn:kms:cn-north-1:111122223333:alias/acme",
            AwsKmsUri("arn:aws-cn:kms:cn-north-1:111122223333:alias/acme", "cn-north-1"),
        ),
        (
            f"awskms:{ARN}?role-arn={ROLE}&external-id=x-1&endpoint=kms.example:8443&ca=file:/ca.pem",
            AwsKmsUri(ARN, "eu-central-1", ROLE, "x-1", "kms.example:8443", "/ca.pem"),
        ),
        (f"awskms:{ID}?region=eusc-de-east-1", AwsKmsUri(ID, "eusc-de-east-1")),
        (f"gcpkms:{GCP}", GcpKmsUri(GCP)),
        (f"gcpkms:{GCP}/cryptoKeyVersions/7", GcpKmsUri(GCP, 7)),
        (
            f"gcpkms:{GCP}?endpoint=kms.example&ca=file:/ca.pem",
            GcpKmsUri(GCP, None, "kms.example", "/ca.pem"),
        ),
        ("azurekv:acme.vault.azure.net/root", AzureKvUri("acme.vault.azure.net", "root")),
        (
            "azurekv:acme.managedhsm.azure.net/root/" + "0a" * 16,
            AzureKvUri("acme.managedhsm.azure.net", "root", "0a" * 16),
        ),
        (
            "azurekv:https://acme.vault.azure.net/keys/root/" + "0a" * 16,
            AzureKvUri("acme.vault.azure.net", "root", "0a" * 16),
        ),
        ("azurekv:Acme.vault.azure.cn:443/root", AzureKvUri("acme.vault.azure.cn", "root")),
        (
            "azurekv:127.0.0.1:8443/root?ca=file:/ca.pem&authority=login.example",
            AzureKvUri("127.0.0.1:8443", "root", None, "login.example", "/ca.pem"),
        ),
    ],
)
def test_what_is_understood(text, uri):
    assert parse(text) == uri
    assert policy(uri).endswith("\n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("awskms:", UriReason.BAD_NAME),
        ("awskms:alias/acme", UriReason.MISSING_REGION),
        (f"awskms:{ID}", UriReason.MISSING_REGION),
        ("awskms:key-without-an-id?region=eu-central-1", UriReason.BAD_NAME),
        ("awskms:arn:aws:s3:::bucket", UriReason.BAD_NAME),
        (f"awskms:{ARN}?region=us-east-1", UriReason.BAD_VALUE),
        (f"awskms:{ARN}?region=Europe", UriReason.BAD_VALUE),
        (f"awskms:arn:aws:kms:cn-north-1:111122223333:key/{ID}", UriReason.BAD_VALUE),
        (f"awskms:{ARN}?region=eu-central-1&region=eu-central-1", UriReason.DUPLICATE_ATTRIBUTE),
        (f"awskms:{ARN}?external-id=x-1", UriReason.BAD_VALUE),
        (f"awskms:{ARN}?role-arn=admin", UriReason.BAD_VALUE),
        (f"awskms:{ARN}?endpoint=http://plain.example", UriReason.BAD_VALUE),
        (f"awskms:{ARN}?endpoint=https://kms.example/path", UriReason.BAD_VALUE),
        (f"awskms:{ARN}?endpoint=kms.example:0", UriReason.BAD_VALUE),
        (f"awskms:{ARN}?endpoint=kms.example:65536", UriReason.BAD_VALUE),
        (f"awskms:{ARN}?endpoint=user@kms.example", UriReason.BAD_VALUE),
        (f"awskms:{ARN}?endpoint=::1", UriReason.BAD_VALUE),
        (f"awskms:{ARN}?endpoint=[1:2]:443", UriReason.BAD_VALUE),
        (f"awskms:{ARN}?endpoint=[fe80::1%25eth0]", UriReason.BAD_VALUE),
        (f"awskms:{ARN}?secret-access-key=s3cret", UriReason.UNKNOWN_ATTRIBUTE),
        (f"awskms:{ARN}?ca=/relative", UriReason.BAD_PATH),
        ("gcpkms:", UriReason.BAD_NAME),
        ("gcpkms:projects/p/locations/l/keyRings/r", UriReason.BAD_NAME),
        (f"gcpkms:{GCP}/cryptoKeyVersions/0", UriReason.BAD_NAME),
        (f"gcpkms:{GCP}?key-file=/x", UriReason.UNKNOWN_ATTRIBUTE),
        ("azurekv:acme/root", UriReason.BAD_NAME),
        ("azurekv:acme.vault.azure.net", UriReason.BAD_NAME),
        ("azurekv:acme.vault.azure.net/root/latest", UriReason.BAD_NAME),
        ("azurekv:https://acme.vault.azure.net/root", UriReason.BAD_NAME),
        ("azurekv:evil.example/root", UriReason.BAD_NAME),
        ("azurekv:https://evil.example/keys/root", UriReason.BAD_NAME),
        ("azurekv:evil.example.vault.azure.net/root", UriReason.BAD_NAME),
        ("azurekv:acme.vault.azure.net:8443/root", UriReason.BAD_NAME),
        ("azurekv:evil.example%2f.vault.azure.net/root", UriReason.BAD_VALUE),
        ("azurekv:acme.vault.azure.net/root?client-secret=s3cret", UriReason.UNKNOWN_ATTRIBUTE),
    ],
)
def test_what_is_refused(text, reason):
    with pytest.raises(L1UriError) as caught:
        parse(text)
    assert caught.value.reason is reason, str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("kms.example", "kms.example"),
        ("kms.example:443", "kms.example"),
        ("https://KMS.example:8443/", "kms.example:8443"),
        ("https://[::1]:443", "[::1]"),
        ("[2001:DB8::0:1]:8443", "[2001:db8::1]:8443"),
        ("192.0.2.1:0443", "192.0.2.1"),
    ],
)
def test_an_endpoint_has_one_form(written, means):
    for text in (f"awskms:{ARN}?endpoint={written}", f"gcpkms:{GCP}?endpoint={written}"):
        uri = parse(text)
        assert isinstance(uri, AwsKmsUri | GcpKmsUri)
        assert uri.endpoint == means
        endpoints.check(uri, f"other.example, {written}")
        with pytest.raises(L1Error, match="not allowed here"):
            endpoints.check(uri, "other.example,,http://x")


@pytest.mark.parametrize("key", [f"awskms:{ARN}", f"gcpkms:{GCP}"])
def test_an_authority_without_its_endpoint_is_not_used(key):
    """Whoever has it could be the cloud for a Core, and would be shown its credentials."""
    with pytest.raises(L1Error, match="name the endpoint"):
        endpoints.check(parse(f"{key}?ca=file:/tmp/own.pem"), "kms.example")
    endpoints.check(parse(f"{key}?endpoint=kms.example&ca=file:/tmp/own.pem"), "kms.example")


def test_a_context_is_readable_where_it_is_ours():
    place = ctx(labels.L1_CONTEXT, "acme", "eu-de", 3)
    assert as_pairs(place) == {
        "kcm-tenant": "acme",
        "kcm-region": "eu-de",
        "kcm-root-version": "3",
    }


contexts = st.binary(max_size=40) | st.builds(
    lambda tenant, region, version: ctx(labels.L1_CONTEXT, tenant, region, version),
    st.text(max_size=8), st.text(max_size=8), st.integers(0, 2**32 - 1),
)  # fmt: skip


@given(contexts, contexts)
def test_different_contexts_are_different_pairs(one, other):
    assert (as_pairs(one) == as_pairs(other)) == (one == other)
    assert all(isinstance(value, str) for value in as_pairs(one).values())
    assert OTHER in as_pairs(b"\xff")


def test_what_aws_allows_is_a_list_to_be_added_as_the_page_says():
    page = (Path(__file__).parents[2] / "docs/l1/awskms.md").read_text()
    assert "jq '.Statement += input' - statements.json" in page, "adds a list to a list"
    use, look = json.loads(aws_policy(AwsKmsUri(ARN, "eu-central-1", role=ROLE)))
    assert use["Action"] == ["kms:Encrypt", "kms:Decrypt"]
    assert look["Action"] == "kms:DescribeKey"
    assert "Condition" not in look, "DescribeKey has no encryption context"
    assert use["Principal"] == look["Principal"] == {"AWS": ROLE}


def test_the_policy_of_aws_grants_what_is_used_and_no_more():
    text = aws_policy(AwsKmsUri(ARN, "eu-central-1", role=ROLE))
    assert ROLE in text
    assert '"kms:Encrypt"' in text
    assert '"kms:Decrypt"' in text
    assert "kms:*" not in text
    assert "kms:EncryptionContext:kcm-tenant" in text


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("eu-central-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
        ("us-iso-east-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"),
        ("eu-isoe-west-1", "aws-iso-e"),
        ("us-isof-south-1", "aws-iso-f"),
        ("eusc-de-east-1", "aws-eusc"),
    ],
)
def test_every_partition_of_aws_is_understood_and_named_in_the_policy(region, partition):
    arn = f"arn:{partition}:kms:{region}:111122223333:key/{ID}"
    uri = parse(f"awskms:{arn}?role-arn=arn:{partition}:iam::111122223333:role/core")
    assert isinstance(uri, AwsKmsUri)
    assert (uri.key, uri.region) == (arn, region)
    assert f'"arn:{partition}:iam::ACCOUNT' in aws_policy(AwsKmsUri(ID, region))


@pytest.mark.parametrize(
    ("suffix", "cloud", "login"),
    [
        ("azure.net", "AzureCloud", "login.microsoftonline.com"),
        ("azure.cn", "AzureChinaCloud", "login.chinacloudapi.cn"),
        ("usgovcloudapi.net", "AzureUSGovernment", "login.microsoftonline.us"),
    ],
)
@pytest.mark.parametrize("kind", ["vault", "managedhsm"])
def test_every_cloud_of_azures_is_told_by_the_vaults_name(kind, suffix, cloud, login):
    uri = parse(f"azurekv:acme.{kind}.{suffix}/root")
    assert isinstance(uri, AzureKvUri)
    assert uri.cloud is not None
    assert (uri.cloud.name, uri.cloud.login) == (cloud, login)
    first = policy(uri).splitlines()[0]
    assert (first == f"az cloud set --name {cloud}") == (cloud != "AzureCloud")


def test_a_managed_hsm_has_roles_of_its_own():
    text = policy(parse("azurekv:acme.managedhsm.azure.net/root"))
    assert "az keyvault role assignment create --hsm-name acme" in text
    assert "--scope /keys/root" in text


ALIAS = "$(aws kms describe-key --region eu-west-1 --key-id alias/acme "
ALIAS += "--query KeyMetadata.KeyId --output text)"


@pytest.mark.parametrize(
    ("text", "state", "line"),
    [
        (
            f"awskms:{ARN}",
            L1State.DISABLED,
            f"aws kms enable-key --region eu-central-1 --key-id {ARN}",
        ),
        (
            "awskms:alias/acme?region=eu-west-1",
            L1State.DISABLED,
            f"aws kms enable-key --region eu-west-1 --key-id {ALIAS}",
        ),
        (
            "gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/3",
            L1State.PENDING_DELETION,
            "gcloud kms keys versions restore 3 --project p --location l --keyring r --key k",
        ),
        (
            "azurekv:acme.vault.azure.net/root",
            L1State.DISABLED,
            "az keyvault key set-attributes --vault-name acme --name root --enabled true",
        ),
        (
            "azurekv:acme.managedhsm.azure.net/root",
            L1State.PENDING_DELETION,
            "az keyvault key recover --hsm-name acme --name root",
        ),
    ],
)
def test_the_next_step_can_be_pasted(text, state, line):
    assert fix(parse(text), L1Error(state, "said")) == line


@pytest.mark.parametrize("state", [state for state in L1State if state is not L1State.ENABLED])
@pytest.mark.parametrize(
    "text",
    [
        f"awskms:{ARN}",
        f"gcpkms:{GCP}",
        "azurekv:acme.vault.azure.net/root",
        "pkcs11:token=t;object=o?module-path=/x.so",
        "softkey:/x",
    ],
)
def test_there_is_always_a_next_step_of_one_line(state, text):
    line = fix(parse(text), L1Error(state, "the credentials are missing, expired or wrong"))
    assert line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("projects/P/locations/l/keyRings/r/cryptoKeys/k", "after projects/"),
        ("projects/p/locations/L/keyRings/r/cryptoKeys/k", "after locations/"),
        ("projects/p/locations/l/keyRings/r r/cryptoKeys/k", "after keyRings/"),
        ("projects/p/locations/l/keyRings/r/cryptoKeys/", "after cryptoKeys/"),
        ("projects/p/keyRings/r/cryptoKeys/k", "name a key as projects/P"),
    ],
)
def test_which_part_of_a_keys_name_is_wrong_is_said(name: str, said: str) -> None:
    with pytest.raises(L1UriError, match=said):
        parse(f"gcpkms:{name}")


def test_the_pages_name_keys_that_can_be_typed() -> None:
    pages = (Path(__file__).resolve().parents[2] / "docs" / "l1").glob("*.md")
    typed = re.compile(r"\nkcm l1 (?:policy|check|link) .*?((?:gcpkms|azurekv):[^\s'\"]+)")
    found = [uri for page in pages for uri in typed.findall(page.read_text())]
    assert len(found) >= 6
    for uri in found:
        parse(uri)
