"""A signed statement: the envelope of everything that must be believed.

The signature is over ``ctx("kcm/v1/sign", kind, signer, SHA-256(body))``; the body is a message in
its canonical encoding. What a kind of statement means, and who may sign it, is decided by
``kcm_trust``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from kcm_schemas.codec import Message
from kcm_schemas.names import Name


class Kind(StrEnum):
    """What a statement says. A signature for one kind is worth nothing for another."""

    ROSTER = "roster"
    TENANT = "tenant"
    LINK = "link"
    SERVICE = "service"
    ROOT_KEYS = "root-keys"
    SERVICE_KEYS = "service-keys"
    HOLD = "hold"
    LIFT = "lift"
    RECEIPT = "receipt"
    LEASE = "lease"
    FENCE = "fence"
    PROOF = "proof"
    PULL = "pull"
    PULL_REPLY = "pull-reply"
    ADMIN = "admin"
    ADMIN_REPLY = "admin-reply"
    AUDIT = "audit"
    AUDIT_HEAD = "audit-head"
    STREAM_HEAD = "stream-head"
    TRIM = "trim"


class Signed(Message):
    """One statement and its signature. Nothing in it counts before it is verified."""

    kind: Annotated[Kind, Field(strict=False)]
    signer: Name
    body: bytes
    signature: Annotated[bytes, Field(min_length=64, max_length=64)]
