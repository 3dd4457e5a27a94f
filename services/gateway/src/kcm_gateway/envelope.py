"""The envelope of each record, given its data key. Synchronous throughout.

A record (suite 1) is header, ciphertext and tag. Its associated data is the header, between a start
that all records of a service share and an end that its context determines. The parts that many
records share are made once, so that a record costs little more than its cipher calls.

The caller holds the keys' memory, and compares their generation before it returns any output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kcm_schemas import limits, record
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.labels import record_aad_start

from kcm_gateway.keys.stock import Segment

COPY_MAX: Final = 4096
"""Bytes of a record up to which a copy of its body is cheaper than a view of it."""

_VERSION_SIZE: Final = 4
_INDEX_SIZE: Final = 4
_NONCE_START: Final = bytes(8)
_INDEXES: Final = tuple(index.to_bytes(_INDEX_SIZE, "big") for index in range(limits.RECORDS_MAX))
"""Encoded indexes of records under a shared key: a piece has one key or more."""

_NONCES: Final = tuple(_NONCE_START + index for index in _INDEXES)
_SINGLE: Final = _INDEXES[0]
_SINGLE_NONCE: Final = _NONCES[0]

Groups: TypeAlias = Mapping[bytes, Sequence[int]]
"""Positions of records by the name of their data key: L3 version (4 bytes), wrapped key (72)."""

ENVELOPES_MAX: Final = 1024
"""Services whose envelope is cached: making it costs a fifth of a call with one small record."""


class Envelope:
    """The envelope of one service's records."""

    def __init__(self, region: str, tenant: str, service: str) -> None:
        self._region: Final = region
        self._names: Final = record.names(region, tenant, service)
        self._key_at: Final = len(self._names)
        self._index_at: Final = self._key_at + _VERSION_SIZE + limits.WRAPPED_SIZE
        self._size: Final = self._index_at + _INDEX_SIZE
        self._least: Final = self._size + limits.TAG_SIZE
        self._aad_start: Final = record_aad_start(self._size)

    def seal_each(
        self, segment: Segment, plaintexts: Sequence[bytes], ends: Sequence[bytes]
    ) -> list[bytes]:
        """Return records with a key each, as many as the segment has keys."""
        start, aad_start = self._start(segment), self._aad_start
        out = []
        with segment.use() as keys:
            work = zip(keys.each, segment.blobs(), plaintexts, ends, strict=True)
            for key, (wrapped,), plaintext, end in work:
                header = start + wrapped + _SINGLE
                aad = aad_start + header + end
                out.append(header + AESGCM(key).encrypt(_SINGLE_NONCE, plaintext, aad))
        return out

    def seal_shared(
        self,
        segment: Segment,
        groups: Iterator[range],
        plaintexts: Sequence[bytes],
        ends: Sequence[bytes],
    ) -> list[bytes]:
        """Return records with one key for each group; takes as many groups as there are keys."""
        start, aad_start = self._start(segment), self._aad_start
        out = []
        with segment.use() as keys:
            for key, (wrapped,), group in zip(keys.each, segment.blobs(), groups, strict=False):
                part = slice(group.start, group.stop)
                encrypt = AESGCM(key).encrypt
                head = start + wrapped
                for index, nonce, plaintext, end in zip(
                    _INDEXES, _NONCES, plaintexts[part], ends[part], strict=False
                ):
                    header = head + index
                    out.append(header + encrypt(nonce, plaintext, aad_start + header + end))
        return out

    def _start(self, segment: Segment) -> bytes:
        return self._names + segment.lease.l3_version.to_bytes(_VERSION_SIZE, "big")

    def sort(self, records: Sequence[bytes], codes: list[Code]) -> Groups:
        """Group records by data key; ``codes`` gets the reason for each record without one here."""
        if records and self._is_shared(records):
            return {records[0][self._key_at : self._index_at]: range(len(records))}
        names, least = self._names, self._least
        name = slice(self._key_at, self._index_at)
        groups: dict[bytes, list[int]] = {}
        for position, one in enumerate(records):
            if one.startswith(names) and len(one) >= least:
                groups.setdefault(one[name], []).append(position)
            else:
                codes[position] = self._refusal(one)
        return groups

    def _is_shared(self, records: Sequence[bytes]) -> bool:
        """Whether all records begin like the first, as a batch with one shared key does."""
        head, least = records[0][: self._index_at], self._least
        return (
            head.startswith(self._names)
            and records[-1].startswith(head)
            and all([one.startswith(head) and len(one) >= least for one in records])  # noqa: C419 - a generator costs more than the rest
        )

    def open(
        self,
        keys: Iterable[tuple[memoryview, Sequence[int]]],
        records: Sequence[bytes],
        ends: Sequence[bytes],
        values: list[bytes],
        codes: list[Code],
    ) -> None:
        """Decrypt, with each key, the records at its positions into ``values`` and ``codes``."""
        size, index_at, aad_start = self._size, self._index_at, self._aad_start
        for key, positions in keys:
            decrypt = AESGCM(key).decrypt
            for position in positions:
                one = records[position]
                try:
                    values[position] = decrypt(
                        _NONCE_START + one[index_at:size],
                        one[size:] if len(one) < COPY_MAX else memoryview(one)[size:],
                        aad_start + one[:size] + ends[position],
                    )
                except InvalidTag:
                    codes[position] = Code.TAMPERED

    def _refusal(self, blob: bytes) -> Code:
        """Return why a record does not belong to this region, tenant and service."""
        try:
            header = record.parse(blob)
        except KcmError as error:
            return error.code
        if header.region != self._region:
            return Code.WRONG_REGION
        return Code.FORBIDDEN


EnvelopeOf: TypeAlias = Callable[[str, str, str], Envelope]
"""Returns the envelope of a region's tenant's service."""


@lru_cache(maxsize=ENVELOPES_MAX)
def cached_envelope(region: str, tenant: str, service: str) -> Envelope:
    """Return the parts that all records of a service share; none of them is secret."""
    return Envelope(region, tenant, service)
