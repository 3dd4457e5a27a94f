"""Every row of every provider's table, with the SDK's own exceptions, and the documents' tables."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from azure.core import exceptions as azure
from botocore import exceptions as boto
from google.api_core import exceptions as google
from google.auth import exceptions as google_auth
from kcm_core.providers.aws_kms import errors as awskms_errors
from kcm_core.providers.azure_key_vault import errors as azurekv_errors
from kcm_core.providers.credentials import fetching
from kcm_core.providers.gcp_kms import errors as gcpkms_errors
from kcm_core.providers.pkcs11 import errors as pkcs11_errors
from kcm_core.providers.state import L1Error, L1State

ROOT = Path(__file__).resolve().parents[2]
SECRET = "s3cret-of-an-sdk"


of_aws = partial(fetching, awskms_errors.name_of)


def seen(translated, error):
    with pytest.raises(L1Error) as caught, translated():
        raise error
    assert SECRET not in f"{caught.value!s} {caught.value!r}"
    assert caught.value.__cause__ is None
    return caught.value


def aws(code, message=SECRET):
    return boto.ClientError({"Error": {"Code": code, "Message": message}}, "Decrypt")


def azure_answer(status, code, inner=None):
    said = {"error": {"code": code, "message": SECRET}}
    if inner:
        said["error"]["innererror"] = {"code": inner}
    response = SimpleNamespace(
        status_code=status, reason="", text=lambda: json.dumps(said), headers={}
    )
    return azure.HttpResponseError(message=SECRET, response=response)


@pytest.mark.parametrize(("code", "row"), sorted(awskms_errors.CODES.items()))
def test_every_code_of_aws(code, row):
    error = seen(awskms_errors.translated, aws(code))
    assert (error.state, error.detail, error.cls) == (*row, code)


@pytest.mark.parametrize(
    ("message", "state"),
    [
        ("arn:aws:kms:… is pending deletion.", L1State.PENDING_DELETION),
        ("arn:aws:kms:… is pending replica deletion.", L1State.PENDING_DELETION),
        ("arn:aws:kms:… is pending import.", L1State.UNREACHABLE),
        ("arn:aws:kms:… is unavailable.", L1State.UNREACHABLE),
        ("", L1State.UNREACHABLE),
    ],
)
def test_the_one_code_of_aws_with_several_states(message, state):
    assert seen(awskms_errors.translated, aws(awskms_errors.STATE, message)).state is state


def denied(policy, action="kms:Decrypt"):
    return [
        f"User: arn:… is not authorized to perform: {action} on resource: arn:… {why}"
        for why in (
            f"because no {policy} allows the {action} action",
            f"with an explicit deny in a {policy}",
        )
    ]


@pytest.mark.parametrize(
    ("policy", "in_a_role", "state"),
    [
        ("resource-based policy", False, L1State.FORBIDDEN),
        ("resource-based policy", True, L1State.FORBIDDEN),
        ("resource control policy", False, L1State.FORBIDDEN),
        *((policy, False, L1State.UNREACHABLE) for policy in awskms_errors.OUR_OWN),
        *((policy, True, L1State.FORBIDDEN) for policy in awskms_errors.OUR_OWN),
        *((policy, False, L1State.UNREACHABLE) for policy in awskms_errors.ON_THE_WAY),
        *((policy, True, L1State.UNREACHABLE) for policy in awskms_errors.ON_THE_WAY),
    ],
)
def test_whose_policy_it_is_that_denies(policy, in_a_role, state):
    translated = partial(awskms_errors.translated, in_a_role=in_a_role)
    for text in denied(policy):
        assert seen(translated, aws("AccessDeniedException", text)).state is state


@pytest.mark.parametrize("policy", awskms_errors.OUR_OWN)
def test_a_core_that_may_not_assume_a_role_by_its_own_policy_is_refused_by_nobody(policy):
    translated = partial(awskms_errors.translated, in_a_role=True)
    for text in denied(policy, "sts:AssumeRole"):
        assert seen(translated, aws("AccessDenied", text)).state is L1State.UNREACHABLE


@pytest.mark.parametrize("cls", awskms_errors.CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_of_botocore(cls):
    fields = {"endpoint_url": SECRET, "error": SECRET, "proxy_url": SECRET, "provider": SECRET,
              "cred_var": SECRET, "error_msg": SECRET, "profile": SECRET}  # fmt: skip
    error = seen(awskms_errors.translated, cls(**fields))
    assert (error.state, error.detail) == awskms_errors.CLASSES[cls]


@pytest.mark.parametrize(
    ("around", "error"),
    [
        *((of_aws, aws(code)) for code in sorted(awskms_errors.CODES)),
        (of_aws, aws(awskms_errors.STATE, "is pending deletion.")),
        (of_aws, boto.NoCredentialsError()),
        (of_aws, RuntimeError(SECRET)),
        *((fetching, azure_answer(403, c)) for c in sorted(azurekv_errors.CODES)),
        (fetching, azure.ClientAuthenticationError(SECRET)),
        (fetching, ValueError(SECRET)),
        (fetching, google_auth.RefreshError(SECRET)),
        (fetching, google_auth.DefaultCredentialsError(SECRET)),
        *((one, FileNotFoundError(SECRET)) for one in (of_aws, fetching)),
    ],
)
def test_what_goes_wrong_with_credentials_of_ones_own_refuses_nothing(around, error):
    found = seen(around, error)
    assert found.state is L1State.UNREACHABLE
    assert "credentials" in found.detail or "clock" in found.detail
    assert found.cls


@pytest.mark.parametrize(
    ("translated", "error"),
    [
        (awskms_errors.translated, aws("NobodyHasSeenThisException")),
        (awskms_errors.translated, boto.HTTPClientError(error=SECRET)),
        (azurekv_errors.translated, azure_answer(418, "Teapot")),
        (azurekv_errors.translated, azure_answer(403, "Forbidden", "SomethingNew")),
        (azurekv_errors.translated, azure.AzureError(SECRET)),
        (gcpkms_errors.translated, google.GoogleAPICallError(SECRET)),
        (gcpkms_errors.translated, google.FailedPrecondition(SECRET)),
        (gcpkms_errors.translated, google.FailedPrecondition("current state is: NEW_WORD")),
    ],
)
def test_what_nobody_has_seen_refuses_nothing_and_is_named(translated, error):
    found = seen(translated, error)
    assert found.state is L1State.UNREACHABLE
    assert found.cls


@pytest.mark.parametrize(("code", "row"), sorted(azurekv_errors.CODES.items()))
@pytest.mark.parametrize("inner", [True, False])
def test_every_code_of_azure(code, row, inner):
    error = azure_answer(403, "Forbidden", code) if inner else azure_answer(403, code)
    found = seen(azurekv_errors.translated, error)
    assert (found.state, found.detail, found.cls) == (*row, code)


def test_what_azure_cannot_unwrap_is_not_authentic():
    found = azurekv_errors.of(azure_answer(400, "BadParameter"), unwrapping=True)
    assert found.state is L1State.INVALID


@pytest.mark.parametrize("cls", azurekv_errors.CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_of_azure(cls):
    found = seen(azurekv_errors.translated, cls(message=SECRET))
    assert (found.state, found.detail) == azurekv_errors.CLASSES[cls]


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"error": 5}', '{"error": null}'])
def test_an_answer_of_a_proxy_refuses_nothing(text):
    error = azure_answer(403, "x")
    error.response.text = lambda: text
    assert seen(azurekv_errors.translated, error).state is L1State.UNREACHABLE


@pytest.mark.parametrize("cls", gcpkms_errors.CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_of_google(cls):
    given = {"cause": None} if cls is google.RetryError else {}
    if cls is google.PermissionDenied:
        given["error_info"] = {"reason": gcpkms_errors.OF_THE_KEY}
    made = cls(SECRET, **given)
    found = seen(gcpkms_errors.translated, made)
    assert (found.state, found.detail) == gcpkms_errors.CLASSES[cls]


@pytest.mark.parametrize(("word", "row"), sorted(gcpkms_errors.STATES.items()))
def test_every_state_of_a_version_at_google(word, row):
    error = google.FailedPrecondition(f"{SECRET} is not enabled, current state is: {word}.")
    found = seen(gcpkms_errors.translated, error)
    assert (found.state, found.detail) == row


@pytest.mark.parametrize(
    "error",
    [
        # Reasons of Google's that are no permission on a key: google/api/error_reason.proto.
        *(
            google.PermissionDenied(SECRET, error_info={"reason": reason})
            for reason in (
                "SERVICE_DISABLED",
                "BILLING_DISABLED",
                "CONSUMER_SUSPENDED",
                "CONSUMER_INVALID",
                "USER_PROJECT_DENIED",
                "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
                "SECURITY_POLICY_VIOLATED",
                "A_REASON_OF_TOMORROW",
            )
        ),
        # What a proxy says, as gRPC tells it.
        google.PermissionDenied("Received http2 header with status: 403"),
        google.PermissionDenied(SECRET),
    ],
    ids=lambda error: error.reason or error.message[:8],
)
def test_what_google_denies_for_another_reason_than_the_key_refuses_nothing(error):
    assert seen(gcpkms_errors.translated, error).state is L1State.UNREACHABLE


def test_a_permission_on_the_key_is_known_by_its_words_where_no_reason_is_given():
    words = "Permission 'cloudkms.cryptoKeyVersions.useToDecrypt' denied on resource 'k' (or"
    found = seen(gcpkms_errors.translated, google.PermissionDenied(words))
    assert found.state is L1State.FORBIDDEN


def test_what_google_cannot_decrypt_is_not_authentic():
    error = gcpkms_errors.of(google.InvalidArgument(SECRET), opening=True)
    assert error.state is L1State.INVALID


def rows(name):
    """The table of an SDK's words in a provider's page."""
    text = (ROOT / "docs" / "l1" / f"{name}.md").read_text().partition(", and what it means\n")[2]
    return {
        (word, state)
        for words, state in re.findall(r"^\| (`.+?) \| `?([a-z_]+)`? \|", text, re.MULTILINE)
        for word in re.findall(r"`([A-Za-z0-9_ ]+)`", words)
    }


@pytest.mark.parametrize(
    ("name", "known"),
    [
        (
            "awskms",
            {code: row[0] for code, row in awskms_errors.CODES.items()}
            | {cls.__name__: row[0] for cls, row in awskms_errors.CLASSES.items()},
        ),
        (
            "azurekv",
            {code: row[0] for code, row in azurekv_errors.CODES.items()}
            | {cls.__name__: row[0] for cls, row in azurekv_errors.CLASSES.items()},
        ),
        (
            "gcpkms",
            {cls.__name__: row[0] for cls, row in gcpkms_errors.CLASSES.items()}
            | {word: row[0] for word, row in gcpkms_errors.STATES.items()},
        ),
        ("pkcs11", {cls.__name__: row[0] for cls, row in pkcs11_errors.STATES.items()}),
    ],
)
def test_the_documents_have_the_same_rows(name, known):
    assert rows(name) == {(word, state.value) for word, state in known.items()}
