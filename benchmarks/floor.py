"""The floor of a decryption: the library's calls that no Python can leave out, and nothing else.

Whoever wants a record's payload while its data key is wrapped and keys stay out of ``bytes`` calls
the library so: ``decrypt_into`` of the wrapped key into locked memory, a cipher object of that key,
``decrypt`` of the payload with the record's associated data. Everything around these calls was made
beforehand: nonces, bodies, associated data, places for keys. Nobody is asked for a key, nothing is
checked, and nothing is wiped.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kcm_keymem.arena import Arena, Keys
from kcm_keymem.pages import fill_random
from kcm_schemas import labels, record
from kcm_schemas.labels import ctx, record_aad

from benchmarks.rig import REGION, SERVICE, TENANT

_Sealed = tuple[bytes, bytes, bytes]
"""Nonce, ciphertext and tag, associated data."""


class Floor:
    """As many records as the engine made, with headers of theirs, under keys of our own."""

    def __init__(
        self, plaintexts: Sequence[bytes], records: Sequence[bytes], *, shared: bool
    ) -> None:
        self._shared: Final = shared
        self._arena: Final = Arena(len(records) * 32)
        self._arena.enter()  # until the end of the process
        self._places: Final[Keys] = self._arena.keys(1 if shared else len(records))
        fill_random(self._places.view)
        wrapping = AESGCM(AESGCM.generate_key(256))
        self._unwrap: Final = wrapping.decrypt_into
        binding = ctx(labels.L4, "record", TENANT, REGION, SERVICE, 1)
        self._wrapped: Final[list[_Sealed]] = [
            (nonce, wrapping.encrypt(nonce, key, binding), binding)
            for key in self._places.each
            for nonce in (os.urandom(12),)
        ]
        self._sealed: Final[list[_Sealed]] = []
        for at, (plaintext, made) in enumerate(zip(plaintexts, records, strict=True)):
            key = self._places.each[0 if shared else at]
            nonce, aad = os.urandom(12), record_aad(record.parse(made).raw, b"")
            self._sealed.append((nonce, AESGCM(key).encrypt(nonce, plaintext, aad), aad))

    def decrypt(self) -> list[bytes]:
        """The plaintexts."""
        return self._with_one_key() if self._shared else self._with_a_key_each()

    def _with_one_key(self) -> list[bytes]:
        ((nonce, wrapped, binding),) = self._wrapped
        (place,) = self._places.each
        self._unwrap(nonce, wrapped, binding, place)
        decrypt = AESGCM(place).decrypt
        return [decrypt(nonce, body, aad) for nonce, body, aad in self._sealed]

    def _with_a_key_each(self) -> list[bytes]:
        unwrap, out = self._unwrap, []
        for place, (at, wrapped, binding), (nonce, body, aad) in zip(
            self._places.each, self._wrapped, self._sealed, strict=True
        ):
            unwrap(at, wrapped, binding, place)
            out.append(AESGCM(place).decrypt(nonce, body, aad))
        return out
