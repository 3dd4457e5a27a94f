"""``awskms:`` URIs: a key in AWS KMS.

``awskms:arn:aws:kms:eu-central-1:111122223333:key/…``, the ARN of an alias, or ``alias/name`` or a
key id with ``?region=…``. ``role-arn`` (with ``external-id``) is assumed first. ``endpoint`` and
``ca`` are for private endpoints and for tests. A URI never contains credentials: they come from the
environment of the Core's unsealer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kcm_core.providers.uri_parts import UriReason, file_uri, host_and_port, query, refuse

_REGION: Final = re.compile(r"[a-z]{2,4}(?:-[a-z]+)+-[0-9]{1,2}")
_PARTITIONS: Final = {
    "cn": "aws-cn",
    "us-gov": "aws-us-gov",
    "us-iso": "aws-iso",
    "us-isob": "aws-iso-b",
    "eu-isoe": "aws-iso-e",
    "us-isof": "aws-iso-f",
    "eusc": "aws-eusc",
}
"""By the start of a region's name (botocore's ``partitions.json``); all others are in ``aws``."""

_PARTITION: Final = "|".join(("aws", *_PARTITIONS.values()))
_UUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ID: Final = rf"(?:{_UUID}|mrk-[0-9a-f]{{32}})"
_ALIAS: Final = r"alias/[A-Za-z0-9/_-]{1,250}"
_PLAIN: Final = re.compile(rf"{_ID}|{_ALIAS}")
_ARN: Final = re.compile(
    rf"arn:(?P<partition>{_PARTITION}):kms:(?P<region>[a-z0-9-]{{1,32}}):[0-9]{{12}}:"
    rf"(?:key/(?P<id>{_ID})|{_ALIAS})"
)
_ROLE: Final = re.compile(
    rf"arn:(?:{_PARTITION}):iam::[0-9]{{12}}:role/[A-Za-z0-9+=,.@_/-]{{1,512}}"
)
_EXTERNAL: Final = re.compile(r"[A-Za-z0-9+=,.@:/_-]{2,1224}")
_ATTRIBUTES: Final = ("ca", "endpoint", "external-id", "region", "role-arn")

_NAMES: Final = "name a key by its ARN, an alias's ARN, or alias/name or a key id with ?region="


@dataclass(frozen=True, slots=True)
class AwsKmsUri:
    """A key in AWS KMS; ``key`` is AWS's KeyId."""

    key: str
    region: str
    role: str | None = None
    external_id: str | None = None
    endpoint: str | None = None
    """``host:port`` in place of the region's own; always HTTPS."""
    ca: str | None = None
    """A file with the certificate authority of that endpoint."""


def partition_of(region: str) -> str:
    """Return the partition of a region."""
    return next((p for start, p in _PARTITIONS.items() if region.startswith(f"{start}-")), "aws")


def parse_awskms(rest: str) -> AwsKmsUri:
    """Parse the part after ``awskms:``; raises ``L1UriError``."""
    name, _, raw = rest.partition("?")
    given = query(raw, _ATTRIBUTES)
    arn = _ARN.fullmatch(name)
    if arn is None and _PLAIN.fullmatch(name) is None:
        refuse(UriReason.BAD_NAME, _NAMES)
    region = given.get("region")
    if arn is not None:
        if region is None:
            region = arn["region"]
        elif region != arn["region"] and not (arn["id"] or "").startswith("mrk-"):
            refuse(UriReason.BAD_VALUE, "the ARN names another region; only mrk- keys have several")
    if region is None:
        refuse(UriReason.MISSING_REGION, "?region= must name the key's region")
    if _REGION.fullmatch(region) is None:
        refuse(UriReason.BAD_VALUE, "a region has the form eu-central-1")
    if arn is not None and arn["partition"] != partition_of(region):
        refuse(UriReason.BAD_VALUE, "the ARN's partition is not that of its region")
    role, external = given.get("role-arn"), given.get("external-id")
    if role is not None and _ROLE.fullmatch(role) is None:
        refuse(UriReason.BAD_VALUE, "role-arn must be the ARN of an IAM role")
    if external is not None and (role is None or _EXTERNAL.fullmatch(external) is None):
        refuse(UriReason.BAD_VALUE, "external-id needs a role-arn")
    endpoint, authority = given.get("endpoint"), given.get("ca")
    return AwsKmsUri(
        key=_replica(name, arn, region),
        region=region,
        role=role,
        external_id=external,
        endpoint=None if endpoint is None else host_and_port(endpoint),
        ca=None if authority is None else file_uri(authority),
    )


def _replica(name: str, arn: re.Match[str] | None, region: str) -> str:
    """Return the key's name in its region: replicas differ only in the region of their ARN."""
    if arn is None or arn["region"] == region:
        return name
    start, end = arn.span("region")
    return name[:start] + region + name[end:]
