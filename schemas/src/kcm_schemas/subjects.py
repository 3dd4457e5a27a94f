"""Subjects: the only place where one is spelled.

Tokens are ``[a-z0-9-]``, 1 to 63 characters, so no name can widen a subject.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import RESERVED_REGION, is_name, is_region

PREFIX: Final = "kcm.v1"
INBOXES: Final = ("_INBOX.", "_R_.")
"""How a subject begins under which somebody waits for an answer: where they are, and what a broker
makes of it when the question came from another account."""

CTL: Final = f"{PREFIX}.{RESERVED_REGION}"
"""Everything that crosses regions lies below this."""


def is_inbox(reply: str) -> bool:
    """Whether an answer may go there.

    Whoever asks chooses the subject of the answer. Answering anywhere else would let them write
    with our permissions: over a stored hold, or a wrapped key.
    """
    return reply.startswith(INBOXES)


def _join(*tokens: str) -> str:
    for token in tokens:
        if not is_name(token):
            raise KcmError(Code.MALFORMED, "a name has 1 to 63 characters of a-z, 0-9 and -")
    return ".".join((PREFIX, *tokens))


def _in_region(region: str, *tokens: str) -> str:
    if not is_region(region):
        raise KcmError(Code.MALFORMED, "a region is a name, and not the reserved one")
    return _join(region, *tokens)


def gateway(region: str, operation: str, tenant: str, service: str) -> str:
    """App to Gateway, request/reply in a queue group."""
    return _in_region(region, "gateway", operation, tenant, service)


def gateway_all(region: str) -> str:
    """What a Gateway listens to."""
    return f"{_in_region(region, 'gateway')}.*.*.*"


def core(region: str, operation: str, tenant: str, service: str) -> str:
    """Gateway to Core, request/reply in a queue group."""
    return _in_region(region, "core", operation, tenant, service)


def core_all(region: str) -> str:
    """What a Core listens to."""
    return f"{_in_region(region, 'core')}.*.*.*"


def admin(region: str, noun: str, verb: str) -> str:
    """Operator to Core, request/reply in a queue group."""
    return _in_region(region, "admin", noun, verb)


def admin_all(region: str) -> str:
    """What a Core listens to for operators."""
    return f"{_in_region(region, 'admin')}.*.*"


def admin_at(region: str, noun: str, verb: str, instance: str) -> str:
    """Operator to one Core, request/reply."""
    return _in_region(region, "admin", noun, verb, instance)


def admin_all_at(region: str, instance: str) -> str:
    """What one Core alone listens to for operators."""
    before = _in_region(region, "admin")
    return f"{before}.*.*{_in_region(region, 'admin', instance).removeprefix(before)}"


def registry_question(region: str) -> str:
    """A Core without memory of the registry to all Cores that have; request/reply."""
    return _in_region(region, "registry", "question")


@dataclass(frozen=True, slots=True)
class DataSubject:
    """A data request's subject, read."""

    operation: str
    tenant: str
    service: str


def read_data(subject: str) -> DataSubject:
    """Read ``kcm.v1.<region>.<role>.<operation>.<tenant>.<service>``."""
    tokens = _read(subject, 7)
    if tokens[3] not in {"gateway", "core"}:
        raise KcmError(Code.MALFORMED, "the subject is not one of a data request")
    return DataSubject(*tokens[4:])


def _read(subject: str, count: int) -> list[str]:
    tokens = subject.split(".")
    known = len(tokens) == count and f"{tokens[0]}.{tokens[1]}" == PREFIX and is_region(tokens[2])
    if not known or not all(is_name(token) for token in tokens):
        raise KcmError(Code.MALFORMED, "not a subject of a request in a region")
    return tokens


def read_admin(subject: str) -> tuple[str, str]:
    """Read noun and verb of ``kcm.v1.<region>.admin.<noun>.<verb>``."""
    tokens = _read(subject, 6)
    if tokens[3] != "admin":
        raise KcmError(Code.MALFORMED, "the subject is not one of an admin request")
    return tokens[4], tokens[5]


def control_all(region: str) -> str:
    """The region's control stream."""
    return f"{_in_region(region, 'control')}.>"


def control_noun(subject: str) -> str:
    """``hold``, ``lifts``, ``lease``, ``region_quorum``, ``proof``, ``roster`` and so on."""
    return subject.split(".")[4]


def control_hold_id(subject: str) -> bytes | None:
    """The hold id at the end of a hold's subject, whatever is stored there; ``None`` if none is."""
    try:
        return bytes.fromhex(subject.rsplit(".", 1)[-1])
    except ValueError:
        return None


def control_hold(region: str, scope: str, hold_id: bytes) -> str:
    """One hold in the region's control stream, also when it is lifted."""
    return _in_region(region, "control", "hold", scope, hold_id.hex())


def control_lifts(region: str, cause: str, origin: str, signer: str, prefix: int) -> str:
    """One signer's page of lifted holds of one cause and origin, by the first byte of their ids."""
    return _in_region(region, "control", "lifts", cause, origin, signer, f"{prefix:02x}")


def read_lifts(subject: str) -> tuple[str, str, str, int] | None:
    """Cause, origin, signer and first byte of such a subject; ``None`` when it is not one."""
    tokens = subject.split(".")
    try:
        cause, origin, signer, prefix = tokens[5:]
        return cause, origin, signer, int(prefix, 16)
    except ValueError:
        return None


def control_lease(region: str, instance: str, incarnation: bytes) -> str:
    """The lease entry of one incarnation, written by that incarnation alone."""
    return _in_region(region, "control", "lease", instance, incarnation.hex())


def control_lease_of(subject: str) -> tuple[str, bytes] | None:
    """Instance and incarnation of a lease entry's subject; ``None`` if it names none."""
    tokens = subject.split(".")
    try:
        return tokens[-2], bytes.fromhex(tokens[-1])
    except ValueError:
        return None


def control_peer_lease(region: str, other: str) -> str:
    """What this region knows of another one."""
    return _in_region(region, "control", "peer-lease", other)


def control_key_use(region: str, link: str, digest: bytes) -> str:
    """The last attestation of one key: ``digest`` is of what it names besides the link."""
    return _in_region(region, "control", "key-use", link, digest[:16].hex())


def control_head(region: str, auditor: str) -> str:
    """How far an Auditor has this region's audit stream: its last signed stream head."""
    return _in_region(region, "control", "head", auditor)


def control_trim(region: str) -> str:
    """The last decision to trim this region's audit stream."""
    return _in_region(region, "control", "trim")


def control_roster(region: str) -> str:
    """The highest roster that a Core of the region has."""
    return _in_region(region, "control", "roster")


def control_lasting(region: str, name: str, page: int) -> str:
    """A page of the list of what lasts of somebody who is retired."""
    return _in_region(region, "control", "lasting", name, str(page))


def read_lasting(subject: str) -> tuple[str, int] | None:
    """Name and page of such a subject; ``None`` when it is not one."""
    tokens = subject.split(".")
    if len(tokens) != 7 or not is_name(tokens[5]) or not tokens[6].isdecimal():
        return None
    return tokens[5], int(tokens[6])


def broadcast_hold(origin: str, scope: str, hold_id: bytes) -> str:
    """A hold or a lift, to everybody in every region, not stored."""
    return _join(RESERVED_REGION, "hold", origin, scope, hold_id.hex())


def broadcast_holds() -> str:
    """All holds and lifts of all regions."""
    return f"{CTL}.hold.>"


def receipt(region: str, hold_id: bytes) -> str:
    """An incarnation's word that it purged, from its own region."""
    return _join(RESERVED_REGION, "receipt", region, hold_id.hex())


def receipts() -> str:
    """All receipts of all regions."""
    return f"{CTL}.receipt.>"


def speaker(subject: str) -> str:
    """The region that speaks in ``kcm.v1.ctl.<noun>.<region>.…``; brokers check that it does."""
    tokens = subject.split(".", 5)
    return tokens[4] if len(tokens) > 4 else ""


def pull(region: str, asker: str) -> str:
    """Ask a region's Cores what they hold; request/reply across regions."""
    return _join(RESERVED_REGION, "pull", region, asker)


def pulls(region: str) -> str:
    """What a region is asked by all others."""
    return f"{_join(RESERVED_REGION, 'pull', region)}.*"


def asker(subject: str) -> str:
    """The region that asks in a pull's subject."""
    return subject.rsplit(".", 1)[-1]


def audit(region: str, emitter: str) -> str:
    """Audit events of one emitter."""
    return _in_region(region, "audit", emitter)


def audit_all(region: str) -> str:
    """Audit events of a region."""
    return f"{_in_region(region, 'audit')}.*"


def auditor(region: str, verb: str) -> str:
    """Operator to Auditor, request/reply in a queue group."""
    return _join(region, "auditor", verb)


def auditor_all(region: str) -> str:
    """What an Auditor listens to."""
    return f"{_join(region, 'auditor')}.*"


def read_audit(subject: str) -> tuple[str, str]:
    """Read region and emitter of ``kcm.v1.<region>.audit.<emitter>``."""
    tokens = subject.split(".")
    if len(tokens) != 5 or not all(is_name(token) for token in tokens[2:]):
        raise KcmError(Code.MALFORMED, "the subject is not one of audit events")
    return tokens[2], tokens[4]


def read_auditor(subject: str) -> str:
    """Read the verb of ``kcm.v1.<region>.auditor.<verb>``."""
    tokens = subject.split(".")
    if len(tokens) != 5 or not is_name(tokens[4]):
        raise KcmError(Code.MALFORMED, "the subject is not one of an auditor's request")
    return tokens[4]


CONTROL_STREAM: Final = "KCM_CONTROL"
AUDIT_STREAM: Final = "KCM_AUDIT"
KEYS_BUCKET: Final = "kcm-keys"
"""Wrapped L2 and L3, and which version is current."""
REGISTRY_BUCKET: Final = "kcm-registry"
"""Tenants, links and services as their operators signed them."""

RESULTS_BUCKET: Final = "kcm-results"
"""The results of finished kills, by the id of their hold."""


def bucket_stream(bucket: str) -> str:
    """The stream behind a key-value bucket."""
    return f"KV_{bucket}"


def bucket_all(bucket: str) -> str:
    """Every key of a bucket."""
    return f"$KV.{bucket}.>"


def bucket_subject(bucket: str, *key: str) -> str:
    """One key of a bucket."""
    _join(*key)
    return ".".join(("$KV", bucket, *key))


def bucket_key(subject: str) -> str:
    """The key of a bucket's subject."""
    return subject.split(".", 2)[2]
