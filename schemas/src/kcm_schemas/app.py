"""Applications, as operators sign them: who may ask a Gateway for what.

An application acts only with its key, only for what its grants list, only in its regions, and only
from ``not_before_ms`` until before ``not_after_ms`` (Unix milliseconds). Its entry is never
deleted: a revocation is an entry with the next revision.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from kcm_schemas import limits
from kcm_schemas.codec import Message
from kcm_schemas.names import U64, Digest, Name
from kcm_schemas.roster import PublicKey

_SIGN: Final = 0x7F
_WEAK: Final = frozenset(
    bytes.fromhex(text)
    for text in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""Ed25519 public keys of small order, without their sign: one signature fits any message."""

Verb = Literal["decrypt", "encrypt"]


class AppGrant(Message):
    """The verbs that an application may use for a tenant's service; ``*`` is every one of them.

    A grant for every tenant needs two operators: one key must not reach all customers.
    """

    tenant: Name | Literal["*"]
    service: Name | Literal["*"]
    verbs: Annotated[list[Verb], Field(min_length=1, max_length=2)]


class App(Message):
    """An application, its public key and its grants.

    ``previous`` is the SHA-256 of the entry that this one replaces, so that two operators do not
    overwrite each other's change; zeros in the first one. ``plain`` lets any client of the broker
    use the application's grants without a key. ``revoked`` ends it.
    """

    app: Name
    revision: U64
    previous: Digest
    public_key: PublicKey
    grants: Annotated[list[AppGrant], Field(max_length=limits.APP_GRANTS_MAX)]
    regions: Annotated[list[Name], Field(min_length=1, max_length=32)]
    not_before_ms: U64
    not_after_ms: U64
    plain: bool
    revoked: bool

    @model_validator(mode="after")
    def _in_order(self) -> App:
        places = [(one.tenant, one.service) for one in self.grants]
        verbs = [sorted(set(one.verbs)) == one.verbs for one in self.grants]
        if not (places == sorted(set(places)) and all(verbs)) or self.regions != sorted(
            set(self.regions)
        ):
            raise ValueError("grants, verbs and regions are in ascending order, each once")
        if self.public_key[:-1] + bytes((self.public_key[-1] & _SIGN,)) in _WEAK:
            raise ValueError(
                "the public key has a small order: one signature by it fits any message"
            )
        return self

    @property
    def reaches_every_tenant(self) -> bool:
        """Whether a grant is for every tenant."""
        return any(one.tenant == "*" for one in self.grants)

    def covers(self, verb: str, tenant: str, service: str) -> bool:
        """Whether a grant lists this verb for a tenant's service."""
        return any(
            one.tenant in ("*", tenant) and one.service in ("*", service) and verb in one.verbs
            for one in self.grants
        )
