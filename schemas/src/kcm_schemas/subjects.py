"""Subjects, spelled here and for encryption in ``data_subjects``, and nowhere else.

Tokens are ``[a-z0-9-]``, 1 to 63 characters, so that no name can widen a subject.
"""

from __future__ import annotations

import re
from typing import Final

from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import RESERVED_REGION, TOKEN, is_name, is_region

PREFIX: Final = "kcm.v1"

_IN_REGION: Final = re.compile(rf"{re.escape(PREFIX)}(?:\.{TOKEN.pattern})+", re.ASCII)
INBOXES: Final = ("_INBOX.", "_R_.")
"""Prefixes of reply subjects: a requester's inbox, and its form after a broker mapped a request
from another account."""

CTL: Final = f"{PREFIX}.{RESERVED_REGION}"
"""The prefix of everything that crosses regions."""


def is_inbox(reply: str) -> bool:
    """Whether a reply may be sent to this subject.

    The requester chooses it. A reply to any other subject would let the requester write with our
    permissions: over a stored hold, or a wrapped key.
    """
    return reply.startswith(INBOXES)


def _join(*tokens: str) -> str:
    for token in tokens:
        if not is_name(token):
            raise KcmError(Code.MALFORMED, "a name needs 1 to 63 characters of a-z, 0-9 and -")
    return ".".join((PREFIX, *tokens))


def in_region(region: str, *tokens: str) -> str:
    """Return a subject of a region; raises ``malformed``."""
    if not is_region(region):
        raise KcmError(Code.MALFORMED, "a region needs a name that is not reserved")
    return _join(region, *tokens)


def admin(region: str, noun: str, verb: str) -> str:
    """Operator to any Core, request/reply in a queue group: for a hold or a lift only."""
    return in_region(region, "admin", noun, verb)


def admin_all(region: str) -> str:
    """The subjects that all Cores serve for operators."""
    return f"{in_region(region, 'admin')}.*.*"


def admin_at(region: str, noun: str, verb: str, instance: str) -> str:
    """Operator to one Core, request/reply within a session."""
    return in_region(region, "admin", noun, verb, instance)


def admin_all_at(region: str, instance: str) -> str:
    """The subjects that one Core alone serves for operators."""
    before = in_region(region, "admin")
    return f"{before}.*.*{in_region(region, 'admin', instance).removeprefix(before)}"


def read_admin_at(subject: str, instance: str) -> tuple[str, str]:
    """Read noun and verb of a subject of ``admin_at`` this instance; raises ``malformed``."""
    tokens = read(subject, 7)
    if (tokens[3], tokens[6]) != ("admin", instance):
        raise KcmError(Code.MALFORMED, "not the subject of an admin request to this instance")
    return tokens[4], tokens[5]


def registry_question(region: str) -> str:
    """A Core without a baseline of the registry to all Cores that have; request/reply."""
    return in_region(region, "registry", "question")


def read(subject: str, count: int) -> list[str]:
    """Return the tokens of a region's subject with so many of them; raises ``malformed``."""
    tokens = subject.split(".") if _IN_REGION.fullmatch(subject) else []
    if len(tokens) != count or not is_region(tokens[2]):
        raise KcmError(Code.MALFORMED, "not the subject of a request in a region")
    return tokens


def read_admin(subject: str) -> tuple[str, str]:
    """Read noun and verb of ``kcm.v1.<region>.admin.<noun>.<verb>``; raises ``malformed``."""
    tokens = read(subject, 6)
    if tokens[3] != "admin":
        raise KcmError(Code.MALFORMED, "not the subject of an admin request")
    return tokens[4], tokens[5]


def control_all(region: str) -> str:
    """The region's control stream."""
    return f"{in_region(region, 'control')}.>"


def control_noun(subject: str) -> str:
    """Return the noun: ``hold``, ``lifts``, ``lease``, ``peer-lease``, ``key-use`` and so on."""
    return subject.split(".")[4]


def control_hold_id(subject: str) -> bytes | None:
    """Return the hold id at the end of a hold's subject, or ``None`` if it is not hexadecimal."""
    try:
        return bytes.fromhex(subject.rsplit(".", 1)[-1])
    except ValueError:
        return None


def control_hold(region: str, scope: str, hold_id: bytes) -> str:
    """One hold in the region's control stream, in force or lifted."""
    return in_region(region, "control", "hold", scope, hold_id.hex())


def control_lifts(region: str, cause: str, origin: str, signer: str, prefix: int) -> str:
    """One signer's lift page for one cause and origin, by the first byte of the ids."""
    return in_region(region, "control", "lifts", cause, origin, signer, f"{prefix:02x}")


def read_lifts(subject: str) -> tuple[str, str, str, int] | None:
    """Return cause, origin, signer and first byte of a lift page's subject, or ``None``."""
    tokens = subject.split(".")
    try:
        cause, origin, signer, prefix = tokens[5:]
        return cause, origin, signer, int(prefix, 16)
    except ValueError:
        return None


def control_lease(region: str, instance: str, incarnation: bytes) -> str:
    """The lease entry of one incarnation, written by that incarnation alone."""
    return in_region(region, "control", "lease", instance, incarnation.hex())


def control_lease_of(subject: str) -> tuple[str, bytes] | None:
    """Return instance and incarnation of a lease entry's subject, or ``None``."""
    tokens = subject.split(".")
    try:
        return tokens[-2], bytes.fromhex(tokens[-1])
    except ValueError:
        return None


def control_peer_lease(region: str, other: str) -> str:
    """The peer lease that this region has from another region."""
    return in_region(region, "control", "peer-lease", other)


def control_key_use(region: str, link: str, digest: bytes) -> str:
    """The latest attestation of one key: ``digest`` covers what names the key besides the link."""
    return in_region(region, "control", "key-use", link, digest[:16].hex())


def control_head(region: str, auditor: str) -> str:
    """An Auditor's latest signed stream head: how much of the audit stream it has."""
    return in_region(region, "control", "head", auditor)


def control_trim(region: str) -> str:
    """The latest decision to trim this region's audit stream."""
    return in_region(region, "control", "trim")


def control_roster(region: str) -> str:
    """The roster with the highest version that a Core of the region has."""
    return in_region(region, "control", "roster")


def control_endorsements(region: str, name: str, page: int) -> str:
    """A page of a retired signer's list of endorsements."""
    return in_region(region, "control", "endorsements", name, str(page))


def read_endorsements(subject: str) -> tuple[str, int] | None:
    """Return name and page of such a subject, or ``None``."""
    tokens = subject.split(".")
    if len(tokens) != 7 or not is_name(tokens[5]) or not tokens[6].isdecimal():
        return None
    return tokens[5], int(tokens[6])


def broadcast_hold(origin: str, scope: str, hold_id: bytes) -> str:
    """A hold or a lift, to all instances in all regions, not stored."""
    return _join(RESERVED_REGION, "hold", origin, scope, hold_id.hex())


def broadcast_holds() -> str:
    """All holds and lifts of all regions."""
    return f"{CTL}.hold.>"


def receipt(region: str, hold_id: bytes) -> str:
    """A receipt of an incarnation, from its own region."""
    return _join(RESERVED_REGION, "receipt", region, hold_id.hex())


def receipts() -> str:
    """All receipts of all regions."""
    return f"{CTL}.receipt.>"


def speaker(subject: str) -> str:
    """Return the sending region in ``kcm.v1.ctl.<noun>.<region>.…``; brokers enforce it."""
    tokens = subject.split(".", 5)
    return tokens[4] if len(tokens) > 4 else ""


def pull(region: str, asker: str) -> str:
    """Ask a region's Cores for its holds; request/reply across regions."""
    return _join(RESERVED_REGION, "pull", region, asker)


def pulls(region: str) -> str:
    """The pulls that all other regions send to a region."""
    return f"{_join(RESERVED_REGION, 'pull', region)}.*"


def asker(subject: str) -> str:
    """Return the asking region in the subject of a pull."""
    return subject.rsplit(".", 1)[-1]


def audit(region: str, emitter: str) -> str:
    """Audit events of one emitter."""
    return in_region(region, "audit", emitter)


def audit_all(region: str) -> str:
    """Audit events of a region."""
    return f"{in_region(region, 'audit')}.*"


def auditor(region: str, verb: str) -> str:
    """Operator to Auditor, request/reply in a queue group."""
    return _join(region, "auditor", verb)


def auditor_all(region: str) -> str:
    """The subjects that an Auditor serves."""
    return f"{_join(region, 'auditor')}.*"


def read_audit(subject: str) -> tuple[str, str]:
    """Read region and emitter of ``kcm.v1.<region>.audit.<emitter>``; raises ``malformed``."""
    tokens = subject.split(".")
    if len(tokens) != 5 or not all(is_name(token) for token in tokens[2:]):
        raise KcmError(Code.MALFORMED, "not the subject of audit events")
    return tokens[2], tokens[4]


def read_auditor(subject: str) -> str:
    """Read the verb of ``kcm.v1.<region>.auditor.<verb>``; raises ``malformed``."""
    tokens = subject.split(".")
    if len(tokens) != 5 or not is_name(tokens[4]):
        raise KcmError(Code.MALFORMED, "not the subject of an auditor request")
    return tokens[4]


CONTROL_STREAM: Final = "KCM_CONTROL"
AUDIT_STREAM: Final = "KCM_AUDIT"
KEYS_BUCKET: Final = "kcm-keys"
"""Wrapped L2 and L3 keys, and the current version of each."""
REGISTRY_BUCKET: Final = "kcm-registry"
"""Tenants, links and services, signed by operators and accepted by a Core."""

RESULTS_BUCKET: Final = "kcm-results"
"""Kill results, by the id of their hold."""


def bucket_stream(bucket: str) -> str:
    """The stream in which a key-value bucket is stored."""
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
