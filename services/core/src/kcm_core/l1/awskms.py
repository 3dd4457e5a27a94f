"""A key in AWS KMS.

One request for each operation: botocore's retries are switched off, connecting and reading have
bounds of their own, and the child's deadline stands above both. ``Decrypt`` always names the key,
so what another key wrapped is refused as that, and the answer's key has to be the one that wrapped:
an alias that was pointed elsewhere meanwhile opens nothing.

The context goes along as AWS's encryption context, in pairs that a key policy can demand and that
CloudTrail shows (``pairs``).
"""

from __future__ import annotations

from typing import Any, Final

import boto3
import botocore.session
from botocore.config import Config
from botocore.loaders import Loader, create_loader

from kcm_core.l1.awskms_errors import translated
from kcm_core.l1.awskms_uri import AwsKmsUri
from kcm_core.l1.pairs import as_pairs
from kcm_core.l1.port import Opened, WrapResult, unknown_mechanism
from kcm_core.l1.state import L1Error, L1State

MECHANISM: Final = "aws-kms"
"""``Encrypt`` and ``Decrypt`` with a symmetric key; the blob is AWS's own."""

CONNECT_S: Final = 2
READ_S: Final = 5
"""Seconds for connecting, and for waiting for an answer."""

SESSION: Final = "kcm-core"
"""Name of the session in which a role is assumed: CloudTrail shows it."""

_SYMMETRIC: Final = "SYMMETRIC_DEFAULT"


def _loaded() -> Loader:
    """AWS's own descriptions of what is used here: read before the fork, and not in every child."""
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
        with translated():
            client, principal = self._client()
            made = client.encrypt(
                KeyId=self._uri.key,
                Plaintext=bytes(plaintext),
                EncryptionContext=as_pairs(context),
                EncryptionAlgorithm=_SYMMETRIC,
            )
            return WrapResult(made["CiphertextBlob"], MECHANISM, made["KeyId"], principal)

    def unwrap(self, blob: bytes, context: bytes, mechanism: str) -> Opened:
        """Open what ``wrap`` made."""
        if mechanism != MECHANISM:
            raise unknown_mechanism()
        with translated():
            client, principal = self._client()
            made = client.decrypt(
                KeyId=self._uri.key,
                CiphertextBlob=blob,
                EncryptionContext=as_pairs(context),
                EncryptionAlgorithm=_SYMMETRIC,
            )
            return Opened(made["Plaintext"], made["KeyId"], principal)

    def _client(self) -> tuple[Any, str]:
        """A client, and in whose name it asks: the role's, or that of an access key."""
        uri = self._uri
        core = botocore.session.Session()
        core.register_component("data_loader", _LOADER)
        session = boto3.Session(botocore_session=core, region_name=uri.region)
        config = Config(
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            retries={"total_max_attempts": 1, "mode": "standard"},
            parameter_validation=False,
            user_agent_extra="kcm-core",
        )
        there: dict[str, Any] = {"config": config}
        if uri.endpoint is not None:
            there["endpoint_url"] = f"https://{uri.endpoint}"
        if uri.ca is not None:
            there["verify"] = uri.ca
        if uri.role is None:
            credentials = session.get_credentials()
            if credentials is None:
                raise L1Error(
                    L1State.UNREACHABLE,
                    "the credentials are missing, expired or wrong",
                    cls="NoCredentialsError",
                )
            return session.client("kms", **there), credentials.get_frozen_credentials().access_key
        asked = {"ExternalId": uri.external_id} if uri.external_id else {}
        assumed = session.client("sts", **there).assume_role(
            RoleArn=uri.role, RoleSessionName=SESSION, **asked
        )["Credentials"]
        client = session.client(
            "kms",
            aws_access_key_id=assumed["AccessKeyId"],
            aws_secret_access_key=assumed["SecretAccessKey"],
            aws_session_token=assumed["SessionToken"],
            **there,
        )
        return client, uri.role
