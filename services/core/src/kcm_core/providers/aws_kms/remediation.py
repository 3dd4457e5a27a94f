"""Remedies for a key in AWS KMS: the policy to grant, and the next step after each failure."""

from __future__ import annotations

import json
from typing import Any, Final

from kcm_core.providers.aws_kms.encryption_context import REGION, TENANT, VERSION
from kcm_core.providers.aws_kms.uri import AwsKmsUri, partition_of
from kcm_core.providers.state import L1Error, L1State

ANYBODY: Final = "arn:{partition}:iam::ACCOUNT:role/YOUR-CORE"
"""Placeholder for the Cores' principal, if the URI names no role."""

_FIXES: Final = {
    L1State.DISABLED: "aws kms enable-key {key}",
    L1State.PENDING_DELETION: "aws kms cancel-key-deletion {key} && aws kms enable-key {key}",
    L1State.DELETED: "is the key's ARN and its region right? A deleted key cannot be restored",
    L1State.FORBIDDEN: "add the statements of `kcm l1 policy URI` to the key's policy",
    L1State.INVALID: "was the alias pointed to another key, or the entry changed? "
    "Name the key by the ARN that wrapped it",
}
_BY_CLASS: Final = {
    "AccessDenied": "let the Core's principal assume the role: its trust policy, its external id",
    "EndpointConnectionError": "is the endpoint right, and does a firewall let HTTPS through?",
    "SSLError": "name the endpoint's certificate authority with ca=file:/path",
    "InvalidKeyUsageException": "aws kms create-key {region} --key-usage ENCRYPT_DECRYPT",
    "UnsupportedOperationException": "aws kms create-key {region} --key-spec SYMMETRIC_DEFAULT",
    "InvalidArnException": "is ?region= the region of the ARN?",
}


def policy(uri: AwsKmsUri) -> str:
    """Return statements for the key's policy: use with this system's context, and DescribeKey."""
    principal = {"AWS": uri.role or ANYBODY.format(partition=partition_of(uri.region))}
    use: dict[str, Any] = {
        "Sid": "SovereignKeyManager",
        "Effect": "Allow",
        "Principal": principal,
        "Action": ["kms:Encrypt", "kms:Decrypt"],
        "Resource": "*",
        "Condition": {
            "ForAllValues:StringEquals": {
                "kms:EncryptionContextKeys": [TENANT, REGION, VERSION],
            },
            "Null": {f"kms:EncryptionContext:{TENANT}": "false"},
        },
    }
    # DescribeKey has no encryption context, so the condition above would never allow it.
    look = {
        "Sid": "SovereignKeyManagerLooks",
        "Effect": "Allow",
        "Principal": principal,
        "Action": "kms:DescribeKey",
        "Resource": "*",
    }
    return json.dumps([use, look], indent=2) + "\n"


def fix(uri: AwsKmsUri, error: L1Error) -> str:
    """Return one line with the next step."""
    if "credentials" in error.detail:
        # Before the classes: AWS denies the Core its own role with the words for a customer's.
        return "aws sts get-caller-identity, with the environment of the Core's unsealer"
    if "account or network" in error.detail:
        return "let the Core's principal use it: its own policy, and that of its VPC endpoint"
    known = _BY_CLASS.get(error.cls) or _FIXES.get(error.state)
    if known is not None:
        region = f"--region {uri.region}"
        return known.format(region=region, key=f"{region} --key-id {_id(uri)}")
    if "endpoint" in error.detail:
        return "the Core's operator adds HOST:PORT to KCM_L1_ENDPOINTS of its unsealer"
    return "does https://status.aws.amazon.com say more? The Core retries by itself"


def _id(uri: AwsKmsUri) -> str:
    """Return the key's id; commands that administer keys do not accept an alias."""
    if "alias/" not in uri.key:
        return uri.key
    ask = f"aws kms describe-key --region {uri.region} --key-id {uri.key}"
    return f"$({ask} --query KeyMetadata.KeyId --output text)"
