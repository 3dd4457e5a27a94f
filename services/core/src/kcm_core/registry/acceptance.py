"""The acceptance of an operator's statement: once for every revision, by one Core for all.

The second store creates every revision only once. So the entry of the first Core that accepts a
revision is the one that all Cores use.
"""

from __future__ import annotations

from typing import Final

from kcm_killswitch.model.registry_objects import RegistryObject, key_of
from kcm_runtime.instance import InstanceContext
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Accepted, RegistryEntry
from kcm_schemas.signed import Kind, read_signed
from kcm_trust.envelopes import statement_digest
from kcm_trust.verify import Untrusted

from kcm_core.registry.stores import RegistryStores


class Acceptance:
    """Signs this Core's acceptance of a statement, and stores it."""

    def __init__(self, me: InstanceContext, stores: RegistryStores) -> None:
        self._me: Final = me
        self._stores: Final = stores

    async def create(self, raw: bytes, obj: RegistryObject) -> bytes:
        """Create the revision in the second store; returns the entry that all Cores use.

        ``raw`` is the signed statement of ``obj``. Raises ``conflict`` if another entry of this
        revision, or a higher revision, was stored before, and ``unavailable``.
        """
        entry = self._signed(raw)
        try:
            await self._stores.create_copy(key_of(obj), obj.revision, entry)
        except KcmError as error:
            if error.code is not Code.CONFLICT:
                raise
        else:
            return entry
        return await self._earlier(obj)

    def object_of(self, entry: bytes) -> RegistryObject:
        """The object of a stored entry; raises ``forbidden`` if it does not verify any more."""
        try:
            return self._me.verifier.registered(entry, self._me.region)
        except Untrusted as error:
            raise KcmError(Code.FORBIDDEN, str(error)) from None

    def _signed(self, raw: bytes) -> bytes:
        accepted = Accepted(
            statement=statement_digest(read_signed(raw)),
            region=self._me.region,
            roster=self._me.verifier.roster.version,
        )
        signed = self._me.identity.sign(Kind.ACCEPTED, accepted)
        return encode(RegistryEntry(statement=raw, accepted=encode(signed)))

    async def _earlier(self, obj: RegistryObject) -> bytes:
        """The entry that exists under the revision already, if it contains the same record."""
        made = await self._stores.copy(key_of(obj))
        if made is None or made.revision != obj.revision:
            raise KcmError(Code.CONFLICT, "a higher revision was accepted already")
        try:
            known = self._me.verifier.registered(made.data, self._me.region)
        except Untrusted:
            known = None
        if known != obj:
            raise KcmError(
                Code.CONFLICT, "another entry of this revision was stored; take a higher one"
            )
        return made.data
