"""A key in AWS KMS.

One request for each operation: botocore's retries are switched off, connecting and reading have
their own bounds, and the child's deadline applies to both. ``Decrypt`` always names the key, so a
blob of another key is rejected as such, and the answer's key must be the one that wrapped: an alias
that meanwhile points to another key unwraps nothing.

The context is sent as AWS's encryption context, in pairs that a key policy can require and that
CloudTrail shows (``encryption_context``).

The principal is determined without a request to AWS: the role of the URI, otherwise the role in the
Core's environment or profile, otherwise the access key. A name must outlast a session, because
attestations are valid only for the same name, and a role has another access key in every session.
"""

from __future__ import annotations

import os
from typing import Any, Final

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import NoCredentialsError
from botocore.loaders import Loader, create_loader

from kcm_core.providers.aws_kms.encryption_context import as_pairs
from kcm_core.providers.aws_kms.errors import name_of, translated
from kcm_core.providers.aws_kms.uri import AwsKmsUri
from kcm_core.providers.credentials import fetching
from kcm_core.providers.port import UnwrapResult, WrapResult, unknown_mechanism

MECHANISM: Final = "aws-kms"
"""``Encrypt`` and ``Decrypt`` with a symmetric key; the blob is AWS's own."""

CONNECT_S: Final = 2
READ_S: Final = 5
"""Seconds for connecting, and for waiting for an answer."""

SESSION: Final = "kcm-core"
"""Name of the session in which a role is assumed, as CloudTrail shows it."""

_BY_PROFILE: Final = "assume-role"
_BY_TOKEN: Final = "assume-role-with-web-identity"  # noqa: S105 - a word of botocore's, no token
"""The origin of a role's session: a profile names the role, or the environment does."""

_SYMMETRIC: Final = "SYMMETRIC_DEFAULT"
_FACTS: Final = ("KeySpec", "KeyUsage", "KeyState", "Origin")


def _loaded() -> Loader:
    """Load AWS's service descriptions before the fork, and not in every child."""
    loader: Loader = create_loader()
    for service in ("kms", "sts"):
        for kind in ("service-2", "endpoint-rule-set-1"):
            loader.load_service_model(service, kind)
    for name in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
        loader.load_data(name)
    return loader


_LOADER: Final = _loaded()


class AwsKmsProvider:
    """The key that an ``awskms:`` URI names."""

    def __init__(self, uri: AwsKmsUri) -> None:
        self._uri = uri

    def wrap(self, plaintext: bytes | bytearray | memoryview, context: bytes) -> WrapResult:
        """Wrap with the newest key material of the key."""
        with translated(in_a_role=self._uri.role is not None):
            client, principal = self._client()
            made = client.encrypt(
                KeyId=self._uri.key,
                Plaintext=bytes(plaintext),
                EncryptionContext=as_pairs(context),
                EncryptionAlgorithm=_SYMMETRIC,
            )
            return WrapResult(made["CiphertextBlob"], MECHANISM, made["KeyId"], principal)

    def unwrap(self, blob: bytes, context: bytes, mechanism: str) -> UnwrapResult:
        """Unwrap a blob of ``wrap``."""
        if mechanism != MECHANISM:
            raise unknown_mechanism()
        with translated(in_a_role=self._uri.role is not None):
            client, principal = self._client()
            made = client.decrypt(
                KeyId=self._uri.key,
                CiphertextBlob=blob,
                EncryptionContext=as_pairs(context),
                EncryptionAlgorithm=_SYMMETRIC,
            )
            return UnwrapResult(made["Plaintext"], made["KeyId"], principal)

    def facts(self) -> dict[str, str]:
        """Return the fields of ``DescribeKey``."""
        with translated(in_a_role=self._uri.role is not None):
            client, _ = self._client()
            said = client.describe_key(KeyId=self._uri.key)["KeyMetadata"]
            return {name: str(said[name]) for name in _FACTS if name in said}

    def _client(self) -> tuple[Any, str]:
        """Return a client and its principal."""
        uri = self._uri
        core = botocore.session.Session()
        core.register_component("data_loader", _LOADER)
        session = boto3.Session(botocore_session=core, region_name=uri.region)
        own, name = _own(core)
        there: dict[str, Any] = {}
        if uri.endpoint is not None:
            there["endpoint_url"] = f"https://{uri.endpoint}"
        if uri.ca is not None:
            there["verify"] = uri.ca
        if uri.role is None:
            return _made(session, "kms", own, **there), name
        asked = {"ExternalId": uri.external_id} if uri.external_id else {}
        # Not at the URI's endpoint, which belongs to KMS and does not serve STS.
        assumed = _made(session, "sts", own).assume_role(
            RoleArn=uri.role, RoleSessionName=SESSION, **asked
        )["Credentials"]
        keys = (assumed["AccessKeyId"], assumed["SecretAccessKey"], assumed["SessionToken"])
        return _made(session, "kms", ReadOnlyCredentials(*keys), **there), uri.role


def _made(session: boto3.Session, service: str, keys: ReadOnlyCredentials, **there: Any) -> Any:
    config = Config(
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        retries={"total_max_attempts": 1, "mode": "standard"},
        parameter_validation=False,
        user_agent_extra="kcm-core",
    )
    return session.client(
        service,
        config=config,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        aws_session_token=keys.token,
        **there,
    )


def _own(core: botocore.session.Session) -> tuple[ReadOnlyCredentials, str]:
    """Return the Core's own credentials and their name, fetched once, before any use of a key."""
    with fetching(name_of):
        found = core.get_credentials()
        if found is None:
            raise NoCredentialsError
        keys = found.get_frozen_credentials()
        return keys, _role(core, found.method) or keys.access_key


def _role(core: botocore.session.Session, method: str) -> str | None:
    """Return the role whose session was fetched, if the configuration names it."""
    if method not in {_BY_PROFILE, _BY_TOKEN}:
        return None
    of_profile: str | None = core.get_scoped_config().get("role_arn")
    return os.environ.get("AWS_ROLE_ARN", of_profile) if method == _BY_TOKEN else of_profile
